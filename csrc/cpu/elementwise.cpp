// Element by element, reductions and repetitions.
//   unary          x (n, size) -> y (n, size) = f(x), by kind (unary.h)
//     backward     dx = dy f'(x)
//   binary         a, b (n, size) -> y: a - b, a b, a / b, max(a, b), min(a, b)
//     backward     dy -> da, db, either of which may be null; of maximum and minimum the one that
//                  is y takes dy, a where they are equal or it is NaN
//   reduce         x (n, outer, size, inner) -> y (n, outer, inner): sum, mean, max or min
//     backward     dx = dy, dy / size, or dy where x has its first maximum (minimum) and 0
//     elsewhere
//   expand         x (n, outer, inner) -> y (n, outer, repeats, inner)
//   broadcast      x (size) -> y (n, size)
//     backward     dx (size) = sum of dy (n, size) over the samples
// A NaN counts as the maximum, and as the minimum.
#include <algorithm>
#include <cstring>
#include <limits>

#include "cpu_kernels.h"
#include "lanes.h"
#include "stream.h"
#include "unary.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

constexpr double kCheap = 0.15, kCostly = 0.5;  // nanoseconds per value

constexpr double cost_of(int64_t kind) {
    switch (kind) {
        case kSoftsign:
        case kHardSigmoid:
        case kHardSwish:
        case kClip:
        case kRelu6:
        case kAbs:
        case kSquare:
            return kCheap;
        default:
            return kCostly;
    }
}

// ---- reductions ---------------------------------------------------------------------------------

template <class T>
struct ToSum {
    static constexpr T kStart = 0;
    Vec<T> operator()(Vec<T> a, Vec<T> b) const { return a + b; }
    T operator()(T a, T b) const { return a + b; }
};

template <class T>
struct ToMax {
    static constexpr T kStart = -std::numeric_limits<T>::infinity();
    Vec<T> operator()(Vec<T> a, Vec<T> b) const { return maximum<T>(a, b); }
    T operator()(T a, T b) const { return a > b || a != a ? a : b; }
};

template <class T>
struct ToMin {
    static constexpr T kStart = std::numeric_limits<T>::infinity();
    Vec<T> operator()(Vec<T> a, Vec<T> b) const { return ((a < b) | (a != a)) ? a : b; }
    T operator()(T a, T b) const { return a < b || a != a ? a : b; }
};

// Of x (count, inner) what is joined over count, of `width` neighbours in inner -> total (width).
template <class T, class Join>
void join_wide(const T* x, int64_t count, int64_t inner, int64_t width, T* total, Join join) {
    for (int64_t j = 0; j < width; ++j) total[j] = Join::kStart;
    int64_t i = 0;
    for (; i + 4 <= count; i += 4) {  // at once, so that total is read and written less often
        const T* row = x + i * inner;
        for_each_vector(total, 0, width, [&](int64_t j, auto part) {
            const Vec<T> first = join(get(row + j, part), get(row + inner + j, part));
            const Vec<T> second =
                join(get(row + 2 * inner + j, part), get(row + 3 * inner + j, part));
            put(total + j, join(get(total + j, part), join(first, second)), part);
        });
    }
    for (; i < count; ++i) {
        const T* row = x + i * inner;
        for_each_vector(total, 0, width, [&](int64_t j, auto part) {
            put(total + j, join(get(total + j, part), get(row + j, part)), part);
        });
    }
}

// How many registers x (count, inner) goes through in turns, so that a lane always sees the same
// place in inner; at least four, which do not wait for each other.
template <class T>
int64_t period_of(int64_t inner) {
    return inner * ((3 + inner) / inner);
}

// The same for all of an inner that does not fill a register.
template <class T, class Join>
void join_narrow(const T* x, int64_t count, int64_t inner, T* total, Join join) {
    constexpr int64_t kMostPeriod = kLanes<T> > 4 ? kLanes<T> : 6;
    const int64_t period = period_of<T>(inner), values = count * inner;
    Vec<T> part[kMostPeriod];
    for (int64_t k = 0; k < period; ++k) part[k] = broadcast(Join::kStart);
    int64_t i = 0;
    if (period == 4) {
        Vec<T> a = part[0], b = a, c = a, d = a;
        for (; i + 4 * kLanes<T> <= values; i += 4 * kLanes<T>) {
            a = join(a, load(x + i));
            b = join(b, load(x + i + kLanes<T>));
            c = join(c, load(x + i + 2 * kLanes<T>));
            d = join(d, load(x + i + 3 * kLanes<T>));
        }
        part[0] = a, part[1] = b, part[2] = c, part[3] = d;
    }
    for (; i + period * kLanes<T> <= values; i += period * kLanes<T>) {
        for (int64_t k = 0; k < period; ++k) part[k] = join(part[k], load(x + i + k * kLanes<T>));
    }
    for (int64_t k = 0; i + kLanes<T> <= values; i += kLanes<T>, ++k) {
        part[k] = join(part[k], load(x + i));
    }
    T parts[kMostPeriod * kLanes<T>];
    for (int64_t k = 0; k < period; ++k) store(parts + k * kLanes<T>, part[k]);
    std::copy(parts, parts + inner, total);
    for (int64_t k = inner, j = 0; k < period * kLanes<T>; ++k, j = j + 1 == inner ? 0 : j + 1) {
        total[j] = join(total[j], parts[k]);
    }
    for (int64_t j = i % inner; i < values; ++i, j = j + 1 == inner ? 0 : j + 1) {
        total[j] = join(total[j], x[i]);
    }
}

// How (size, inner) is cut: blocks of inner, and chunks of size that are joined by themselves, then
// in their order. By these two alone, so that a sample's bits depend on no other sample.
template <class T>
struct Cut {
    static constexpr int64_t kMostWidth = 1024, kValues = 1 << 15, kLeastChunk = 64;
    bool wide;
    int64_t width, blocks, chunk, chunks;

    Cut(int64_t size, int64_t inner) : wide(inner >= kLanes<T>) {
        width = std::min(inner, kMostWidth);
        blocks = (inner + width - 1) / width;
        chunk = std::max(kLeastChunk, kValues / width);
        chunks = std::max<int64_t>(1, (size + chunk - 1) / chunk);
    }
};

// Short rows would leave most lanes idle: as many columns as there are lanes at once.
template <class T>
bool is_short(int64_t size, int64_t inner) {
    return inner < kLanes<T> && size * inner < 2 * period_of<T>(inner) * kLanes<T>;
}

template <class T, class Join>
void reduce_short(const Context& context, int64_t rows, int64_t size, int64_t inner, T divisor,
                  const T* x, T* y, Join join) {
    const int64_t columns = rows * inner, groups = (columns + kLanes<T> - 1) / kLanes<T>;
    parallel_for(context, groups, 0.5 * size * kLanes<T>, [&](int64_t begin, int64_t end) {
        T* lanes = scratch<T>(kLocal, size * kLanes<T>);
        for (int64_t group = begin; group < end; ++group) {
            const int64_t first = group * kLanes<T>,
                          count = std::min<int64_t>(kLanes<T>, columns - first);
            load_columns(x, size, inner, first, count, lanes);
            Vec<T> total = broadcast(Join::kStart);
            for (int64_t i = 0; i < size; ++i) total = join(total, load(lanes + i * kLanes<T>));
            store_run(y + first, y + columns, total / broadcast(divisor), count);
        }
    });
}

// x (rows, size, inner) -> y (rows, inner), joined over size and divided by divisor.
template <class T, class Join>
void reduce_rows(const Context& context, int64_t rows, int64_t size, int64_t inner, T divisor,
                 const T* x, T* y, Join join) {
    const Cut<T> cut(size, inner);
    if (is_short<T>(size, inner)) {
        return reduce_short(context, rows, size, inner, divisor, x, y, join);
    }
    // Of block b of a row: chunk c.
    const auto join_chunk = [&](int64_t row, int64_t b, int64_t c, T* total) {
        const int64_t first = c * cut.chunk, count = std::min(cut.chunk, size - first);
        const T* from = x + (row * size + first) * inner + b * cut.width;
        if (cut.wide) {
            join_wide(from, count, inner, std::min(cut.width, inner - b * cut.width), total, join);
        } else {
            join_narrow(from, count, inner, total, join);
        }
    };
    // The chunks' totals, which chunk_total(row, b, c) gives, in their order.
    const auto finish = [&](int64_t row, int64_t b, auto chunk_total) {
        T* total = y + row * inner + b * cut.width;
        const int64_t width = std::min(cut.width, inner - b * cut.width);
        for (int64_t c = 0; c < cut.chunks; ++c) {
            const T* part = chunk_total(row, b, c);
            for_each_vector(total, 0, width, [&](int64_t j, auto lanes) {
                const Vec<T> v = get(part + j, lanes);
                put(total + j, c == 0 ? v : join(get(total + j, lanes), v), lanes);
            });
        }
        if (divisor != 1) {
            for (int64_t j = 0; j < width; ++j) total[j] /= divisor;
        }
    };
    const int64_t items = rows * cut.blocks;
    const double cost = 0.15 * cut.width * std::min(size, cut.chunk);
    if (context.threads == 1 || cut.chunks == 1 || items >= 4 * context.threads) {
        parallel_for(context, items, cost * cut.chunks, [&](int64_t begin, int64_t end) {
            T part[Cut<T>::kMostWidth];
            for (int64_t item = begin; item < end; ++item) {
                finish(item / cut.blocks, item % cut.blocks,
                       [&](int64_t row, int64_t b, int64_t c) {
                           join_chunk(row, b, c, part);
                           return part;
                       });
            }
        });
        return;
    }
    // Few rows, long ones: threads share their chunks.
    T* parts = scratch<T>(kShared, items * cut.chunks * cut.width);
    parallel_for(context, items * cut.chunks, cost, [&](int64_t begin, int64_t end) {
        for (int64_t k = begin; k < end; ++k) {
            const int64_t item = k / cut.chunks;
            join_chunk(item / cut.blocks, item % cut.blocks, k % cut.chunks, parts + k * cut.width);
        }
    });
    parallel_for(context, items, 0.15 * cut.width * cut.chunks, [&](int64_t begin, int64_t end) {
        for (int64_t item = begin; item < end; ++item) {
            finish(item / cut.blocks, item % cut.blocks, [&](int64_t, int64_t, int64_t c) {
                return parts + (item * cut.chunks + c) * cut.width;
            });
        }
    });
}

// ---- backward of maximum and minimum ------------------------------------------------------------
// dx (rows, size, inner) = dy (rows, inner) where x is the first of what Join finds, else 0.

// `left` is the gradient until it has found its place.
template <class T>
Vec<T> take(Vec<T> x, Vec<T> top, Vec<T>& left) {
    const auto here = (x == top) | (x != x);  // x is a NaN only where top is
    const Vec<T> gradient = here ? left : Vec<T>{};
    left = here ? Vec<T>{} : left;
    return gradient;
}

template <class T, class Join>
void to_first_wide(const Context& context, int64_t rows, int64_t size, int64_t inner, const T* dy,
                   const T* x, T* dx, Join join) {
    constexpr int64_t kWidth = 256;
    const int64_t width = std::min(inner, kWidth), blocks = (inner + width - 1) / width;
    parallel_for(context, rows * blocks, 0.3 * size * width, [&](int64_t begin, int64_t end) {
        T top[kWidth], left[kWidth];
        for (int64_t item = begin; item < end; ++item) {
            const int64_t row = item / blocks, first = item % blocks * width;
            const int64_t count = std::min(width, inner - first);
            const T* from = x + row * size * inner + first;
            T* to = dx + row * size * inner + first;
            join_wide(from, size, inner, count, top, join);
            std::copy(dy + row * inner + first, dy + row * inner + first + count, left);
            for (int64_t i = 0; i < size; ++i, from += inner, to += inner) {
                for_each_vector(left, 0, count, [&](int64_t j, auto part) {
                    Vec<T> rest = get(left + j, part);
                    put(to + j, take<T>(get(from + j, part), get(top + j, part), rest), part);
                    put(left + j, rest, part);
                });
            }
        }
    });
}

template <class T, class Join>
void to_first_short(const Context& context, int64_t rows, int64_t size, int64_t inner, const T* dy,
                    const T* x, T* dx, Join join) {
    const int64_t columns = rows * inner, groups = (columns + kLanes<T> - 1) / kLanes<T>;
    parallel_for(context, groups, 1.0 * size * kLanes<T>, [&](int64_t begin, int64_t end) {
        T* lanes = scratch<T>(kLocal, size * kLanes<T>);
        for (int64_t group = begin; group < end; ++group) {
            const int64_t first = group * kLanes<T>;
            const int64_t count = std::min<int64_t>(kLanes<T>, columns - first);
            load_columns(x, size, inner, first, count, lanes);
            Vec<T> top = broadcast(Join::kStart), left = load_run(dy + first, dy + columns, count);
            for (int64_t i = 0; i < size; ++i) top = join(top, load(lanes + i * kLanes<T>));
            for (int64_t i = 0; i < size; ++i) {
                T* const values = lanes + i * kLanes<T>;
                store(values, take<T>(load(values), top, left));
            }
            store_columns(lanes, size, inner, first, count, dx);
        }
    });
}

// The first of x (size), `step` apart, that is top or a NaN; there is one.
template <class T>
int64_t first_place(const T* x, int64_t size, int64_t step, T top) {
    int64_t i = 0;
    if (step == 1) {
        for (; i + kLanes<T> <= size; i += kLanes<T>) {
            const Vec<T> v = load(x + i);
            const auto here = (v == broadcast(top)) | (v != v);
            if (std::memchr(&here, 0xff, sizeof here)) break;
        }
    }
    while (x[i * step] != top && x[i * step] == x[i * step]) ++i;
    return i;
}

template <class T, class Join>
void to_first_narrow(const Context& context, int64_t rows, int64_t size, int64_t inner, const T* dy,
                     const T* x, T* dx, Join join) {
    parallel_for(context, rows, 0.5 * size * inner, [&](int64_t begin, int64_t end) {
        T top[kLanes<T>];
        for (int64_t row = begin; row < end; ++row) {
            const T* from = x + row * size * inner;
            T* to = dx + row * size * inner;
            join_narrow(from, size, inner, top, join);
            std::memset(to, 0, static_cast<size_t>(size * inner) * sizeof(T));
            for (int64_t j = 0; j < inner; ++j) {
                to[first_place(from + j, size, inner, top[j]) * inner + j] = dy[row * inner + j];
            }
        }
    });
}

template <class T, class Join>
void to_first(const Context& context, int64_t rows, int64_t size, int64_t inner, const T* dy,
              const T* x, T* dx, Join join) {
    if (is_short<T>(size, inner)) {
        to_first_short(context, rows, size, inner, dy, x, dx, join);
    } else if (inner < kLanes<T>) {
        to_first_narrow(context, rows, size, inner, dy, x, dx, join);
    } else {
        to_first_wide(context, rows, size, inner, dy, x, dx, join);
    }
}

// ---- repetitions --------------------------------------------------------------------------------

// y = x (inner) / divisor, so many times.
template <class T>
void repeat(const T* x, int64_t inner, int64_t repeats, T divisor, T* y) {
    const int64_t total = repeats * inner;
    if (inner == 1) return std::fill(y, y + total, x[0] / divisor);
    if (divisor == 1) {
        std::memcpy(y, x, static_cast<size_t>(inner) * sizeof(T));
    } else {
        for (int64_t j = 0; j < inner; ++j) y[j] = x[j] / divisor;
    }
    for (int64_t done = inner; done < total;) {  // twice as much each time
        const int64_t count = std::min(done, total - done);
        std::memcpy(y + done, y, static_cast<size_t>(count) * sizeof(T));
        done += count;
    }
}

// x (rows, inner) -> y (rows, repeats, inner) = x / divisor.
template <class T>
void repeat_rows(const Context& context, int64_t rows, int64_t repeats, int64_t inner, T divisor,
                 const T* x, T* y) {
    constexpr int64_t kValues = 8192;  // what is copied on stays in the nearest cache
    if (rows * repeats * inner == 0) return;
    const int64_t piece = std::min(repeats, std::max<int64_t>(1, kValues / inner));
    const int64_t pieces = (repeats + piece - 1) / piece;
    parallel_for(context, rows * pieces, 2 + kCheap * piece * inner,
                 [&](int64_t begin, int64_t end) {
                     for (int64_t k = begin; k < end; ++k) {
                         const int64_t row = k / pieces, first = k % pieces * piece;
                         repeat(x + row * inner, inner, std::min(piece, repeats - first), divisor,
                                y + (row * repeats + first) * inner);
                     }
                 });
}

}  // namespace

// ---- kernels ------------------------------------------------------------------------------------
template <class T>
void unary(const Context& context, const Unary& s, int64_t n, const T* x, T* y) {
    const auto [a, b] = unary_bounds(s);
    const T first = static_cast<T>(a), second = static_cast<T>(b);
    with_unary(s.kind, [&](auto kind) {
        constexpr int64_t kKind = decltype(kind)::value;
        const bool past = streams<T>(n * s.size, y, x);
        parallel_stores(context, n * s.size, cost_of(kKind), [&](int64_t begin, int64_t end) {
            for_each_vector(past, y, begin, end, [&](int64_t i, auto part) {
                put(y + i, unary_of<kKind, T>(first, second, get(x + i, part)), part);
            });
        });
    });
}

template <class T>
void unary_backward(const Context& context, const Unary& s, int64_t n, const T* dy, const T* x,
                    T* dx) {
    const auto [a, b] = unary_bounds(s);
    const T first = static_cast<T>(a), second = static_cast<T>(b);
    with_unary(s.kind, [&](auto kind) {
        constexpr int64_t kKind = decltype(kind)::value;
        const bool past = streams<T>(n * s.size, dx, x) && dx != dy;
        parallel_stores(context, n * s.size, cost_of(kKind), [&](int64_t begin, int64_t end) {
            for_each_vector(past, dx, begin, end, [&](int64_t i, auto part) {
                put(dx + i,
                    unary_backward_of<kKind, T>(first, second, get(dy + i, part), get(x + i, part)),
                    part);
            });
        });
    });
}

template <class T>
void binary(const Context& context, const Binary& s, int64_t n, const T* a, const T* b, T* y) {
    const auto run = [&](auto f) {
        const bool past = streams<T>(n * s.size, y, a) && y != b;
        parallel_stores(context, n * s.size, kCheap, [&](int64_t begin, int64_t end) {
            for_each_vector(past, y, begin, end, [&](int64_t i, auto part) {
                put(y + i, f(get(a + i, part), get(b + i, part)), part);
            });
        });
    };
    switch (s.kind) {
        case kSubtract:
            return run([](Vec<T> v, Vec<T> w) { return v - w; });
        case kMultiply:
            return run([](Vec<T> v, Vec<T> w) { return v * w; });
        case kDivide:
            return run([](Vec<T> v, Vec<T> w) { return v / w; });
        // Of equal values the first, of -0 and 0 too.
        case kMaximum:
            return run([](Vec<T> v, Vec<T> w) { return ((v >= w) | (v != v)) ? v : w; });
        default:
            return run([](Vec<T> v, Vec<T> w) { return ((v <= w) | (v != v)) ? v : w; });
    }
}

template <class T>
void binary_backward(const Context& context, const Binary& s, int64_t n, const T* dy, const T* a,
                     const T* b, T* da, T* db) {
    const auto run = [&](auto to_a, auto to_b) {
        parallel_for(context, n * s.size, 2 * kCheap, [&](int64_t begin, int64_t end) {
            for_each_vector(da ? da : db, begin, end, [&](int64_t i, auto part) {
                const Vec<T> g = get(dy + i, part), v = get(a + i, part), w = get(b + i, part);
                if (da) put(da + i, to_a(g, v, w), part);
                if (db) put(db + i, to_b(g, v, w), part);
            });
        });
    };
    if (!da && !db) return;
    switch (s.kind) {
        case kSubtract:
            return run([](Vec<T> g, Vec<T>, Vec<T>) { return g; },
                       [](Vec<T> g, Vec<T>, Vec<T>) { return -g; });
        case kMultiply:
            return run([](Vec<T> g, Vec<T>, Vec<T> w) { return g * w; },
                       [](Vec<T> g, Vec<T> v, Vec<T>) { return g * v; });
        case kDivide:
            return run([](Vec<T> g, Vec<T>, Vec<T> w) { return g / w; },
                       [](Vec<T> g, Vec<T> v, Vec<T> w) { return -(g / w) * (v / w); });
        case kMaximum:
            return run(
                [](Vec<T> g, Vec<T> v, Vec<T> w) { return ((v >= w) | (v != v)) ? g : Vec<T>{}; },
                [](Vec<T> g, Vec<T> v, Vec<T> w) { return ((v >= w) | (v != v)) ? Vec<T>{} : g; });
        default:
            return run(
                [](Vec<T> g, Vec<T> v, Vec<T> w) { return ((v <= w) | (v != v)) ? g : Vec<T>{}; },
                [](Vec<T> g, Vec<T> v, Vec<T> w) { return ((v <= w) | (v != v)) ? Vec<T>{} : g; });
    }
}

template <class T>
void reduce(const Context& context, const Reduce& s, int64_t n, const T* x, T* y) {
    const int64_t rows = n * s.outer;
    const T one = 1;
    switch (s.kind) {
        case kSum:
            return reduce_rows(context, rows, s.size, s.inner, one, x, y, ToSum<T>{});
        case kMean:
            return reduce_rows(context, rows, s.size, s.inner, static_cast<T>(s.size), x, y,
                               ToSum<T>{});
        case kMax:
            return reduce_rows(context, rows, s.size, s.inner, one, x, y, ToMax<T>{});
        default:
            return reduce_rows(context, rows, s.size, s.inner, one, x, y, ToMin<T>{});
    }
}

template <class T>
void reduce_backward(const Context& context, const Reduce& s, int64_t n, const T* dy, const T* x,
                     T* dx) {
    const int64_t rows = n * s.outer;
    switch (s.kind) {
        case kSum:
            return repeat_rows(context, rows, s.size, s.inner, T(1), dy, dx);
        case kMean:
            return repeat_rows(context, rows, s.size, s.inner, static_cast<T>(s.size), dy, dx);
        case kMax:
            return to_first(context, rows, s.size, s.inner, dy, x, dx, ToMax<T>{});
        default:
            return to_first(context, rows, s.size, s.inner, dy, x, dx, ToMin<T>{});
    }
}

template <class T>
void expand(const Context& context, const Expand& s, int64_t n, const T* x, T* y) {
    repeat_rows(context, n * s.outer, s.repeats, s.inner, T(1), x, y);
}

template <class T>
void broadcast(const Context& context, const Elementwise& s, int64_t n, const T* x, T* y) {
    repeat_rows(context, 1, n, s.size, T(1), x, y);
}

template <class T>
void broadcast_backward(const Context& context, const Elementwise& s, int64_t n, const T* dy,
                        T* dx) {
    reduce_rows(context, 1, n, s.size, T(1), dy, dx, ToSum<T>{});
}

INSTANTIATE(unary)
INSTANTIATE(unary_backward)
INSTANTIATE(binary)
INSTANTIATE(binary_backward)
INSTANTIATE(reduce)
INSTANTIATE(reduce_backward)
INSTANTIATE(expand)
INSTANTIATE(broadcast_backward)
// simd.h has a function of this name too, so the types must be written out.
template void broadcast(const Context&, const Elementwise&, int64_t, const float*, float*);
template void broadcast(const Context&, const Elementwise&, int64_t, const double*, double*);

}  // namespace CONVKIT_ISA
}  // namespace convkit
