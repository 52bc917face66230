#include "registry.h"

#include <stdexcept>
#include <type_traits>
#include <unordered_map>
#include <utility>

namespace convkit {
namespace {

// What kernels.inc says about an argument's length.
Count optional(Count count) {
    count.optional = true;
    return count;
}
Count inout(Count count) {
    count.inout = true;
    return count;
}
Count over(int argument, Count count) {
    count.overlay = argument;
    return count;
}
Count any() {
    Count count(0);
    count.any = true;
    return count;
}

// Stands for T when the types of parameters are read off a signature.
struct Real {};

template <class P>
constexpr Element element_of() {
    using E = std::remove_const_t<std::remove_pointer_t<P>>;
    if constexpr (std::is_same_v<E, Real>) return Element::kReal;
    if constexpr (std::is_same_v<E, uint8_t>) return Element::kUint8;
    if constexpr (std::is_same_v<E, int32_t>) return Element::kInt32;
    if constexpr (std::is_same_v<E, int64_t>) return Element::kInt64;
    if constexpr (std::is_same_v<E, double>) return Element::kFloat64;
    return Element::kAny;
}

// "(const T* x, T* y)" -> {"x", "y"}
std::vector<std::string> parameter_names(const std::string& text) {
    std::vector<std::string> names;
    for (size_t end = 0; (end = text.find_first_of(",)", end)) != std::string::npos; ++end) {
        const size_t begin = text.find_last_of(" *", end) + 1;
        names.push_back(text.substr(begin, end - begin));
    }
    return names;
}

template <class... P>
std::vector<Argument> arguments_of(void (*)(P...), const std::string& text) {
    static_assert(sizeof...(P) <= kMostArguments);
    const std::vector<std::string> names = parameter_names(text);
    const Element elements[] = {element_of<P>()...};
    const bool writes[] = {!std::is_const_v<std::remove_pointer_t<P>>...};
    std::vector<Argument> arguments;
    for (size_t i = 0; i < names.size(); ++i)
        arguments.push_back({names[i], elements[i], writes[i]});
    return arguments;
}

template <class S, class... P, size_t... I>
void call(void (*kernel)(const Context&, const S&, int64_t, P...), const Context& context,
          const Spec& spec, int64_t n, void* const* arguments, std::index_sequence<I...>) {
    kernel(context, std::get<S>(spec), n, static_cast<P>(arguments[I])...);
}

template <class S, class... P>
void call(void (*kernel)(const Context&, const S&, int64_t, P...), const Context& context,
          const Spec& spec, int64_t n, void* const* arguments) {
    call(kernel, context, spec, n, arguments, std::index_sequence_for<P...>());
}

// The kernel, where the table has it.
template <class Function>
Function* there(Function* kernel, const char* name, const KernelTable& table) {
    if (!kernel)
        throw std::invalid_argument(std::string(name) + ": expected a backend that has it, got " +
                                    table.name);
    return kernel;
}

template <class T>
struct Signatures {  // the types of the parameters alone
#define KERNEL(name, Spec_, parameters, counts) using name = void(CONVKIT_UNPACK parameters);
#include "kernels.inc"
#undef KERNEL
};

std::vector<KernelInfo> make_list() {
    return {
#define KERNEL(name_, Spec_, parameters, counts_)                                                \
    KernelInfo{#name_,                                                                           \
               arguments_of(static_cast<Signatures<Real>::name_*>(nullptr), #parameters),        \
               [](const Spec& any_spec, [[maybe_unused]] int64_t n) {                            \
                   [[maybe_unused]] const Spec_& s = std::get<Spec_>(any_spec);                  \
                   return std::vector<Count>{CONVKIT_UNPACK counts_};                            \
               },                                                                                \
               [](const KernelTable& table, const Context& context, const Spec& spec, int64_t n, \
                  void* const* arguments) {                                                      \
                   call(there(table.float32.name_, #name_, table), context, spec, n, arguments); \
               },                                                                                \
               [](const KernelTable& table, const Context& context, const Spec& spec, int64_t n, \
                  void* const* arguments) {                                                      \
                   call(there(table.float64.name_, #name_, table), context, spec, n, arguments); \
               },                                                                                \
               [](const KernelTable& table) {                                                    \
                   return reinterpret_cast<const void*>(table.float32.name_);                    \
               }},
#include "kernels.inc"
#undef KERNEL
    };
}

struct InLanes {
    bool operator()(Pool2d& s) const { return widen(s.channels); }
    bool operator()(Upsample2d& s) const { return widen(s.channels); }
    bool operator()(Elementwise& s) const { return widen(s.size); }
    bool operator()(Activation& s) const { return widen(s.size); }
    bool operator()(Rescale& s) const { return widen(s.size); }
    bool operator()(Softmax& s) const { return widen(s.inner); }
    bool operator()(Loss& s) const { return widen(s.inner); }
    bool operator()(Unary& s) const { return widen(s.size); }
    bool operator()(Binary& s) const { return widen(s.size); }
    bool operator()(Reduce& s) const { return widen(s.inner); }
    bool operator()(Expand& s) const { return widen(s.inner); }
    bool operator()(Pad2d& s) const { return widen(s.channels); }
    bool operator()(Permute& s) const { return widen(s.inner); }
    bool operator()(PointwiseLoss& s) const { return widen(s.inner); }
    bool operator()(TopK& s) const { return widen(s.inner); }
    bool operator()(Concatenate& s) const { return widen(s.first) && widen(s.second); }
    template <class Other>
    bool operator()(Other&) const {
        return false;
    }

    static bool widen(int64_t& size) {
        size *= kTile;
        return true;
    }
};

}  // namespace

bool in_lanes(Spec& spec) { return std::visit(InLanes{}, spec); }

const std::vector<KernelInfo>& kernel_list() {
    static const std::vector<KernelInfo> list = make_list();
    return list;
}

const KernelInfo& find_kernel(const std::string& name) {
    static const auto by_name = [] {
        std::unordered_map<std::string, const KernelInfo*> map;
        for (const KernelInfo& info : kernel_list()) map[info.name] = &info;
        return map;
    }();
    const auto found = by_name.find(name);
    if (found == by_name.end()) throw std::invalid_argument("no kernel is named '" + name + "'");
    return *found->second;
}

}  // namespace convkit
