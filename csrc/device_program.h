// A planned program on a device: a step is kernels in a queue, recorded into graphs and replayed.
//
// Values are in memory of the device, states and fed arrays in the caller's, the rest in one block
// that is lent. What moves on from step to step is there too: the order of an epoch, and a cursor
// from which each step takes its rows; so one graph serves all steps of a size, and the host need
// not say a word in between.
//
// A depth-first plan is carried out by a Stretch: a step then is a launch or two, over the same
// order, cursor and windows.
//
// What does not fit may stay on the host: sources of gathers and what is fed. Then the rows of some
// steps together, a window, are gathered into pinned memory by the host's threads and copied in a
// queue of their own, while the device still works on the window before.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "device.h"
#include "program.h"
#include "stretch.h"

namespace convkit {

class DeviceProgram {
 public:
    // The plan outlives this and stays as it is. It is a breadth-first one; or where `fused`, a
    // depth-first one for a Stretch: throws DoesNotFit where there can be none, by the plan and the
    // kind of device alone.
    DeviceProgram(const Program& plan, const Device& library, int device, bool fused);
    ~DeviceProgram();
    DeviceProgram(const DeviceProgram&) = delete;
    DeviceProgram& operator=(const DeviceProgram&) = delete;

    // Memory of the device, or of the host: that can be the source of gathers and what is fed,
    // results too. The index of gathers always is of the host: the device has a copy of its own.
    // `elements` counts all rows. Throws std::invalid_argument where they do not fit the value.
    struct Given {
        void* data = nullptr;
        int64_t item_bytes = 0, elements = 0, rows = 0;
        bool on_host = false, writable = false, bound = true;
    };
    void bind(int value, const Given& given);
    void unbind(int value);

    // Bytes of a block of device memory that a run of so many rows needs; 0: what was lent will do.
    int64_t wanted(int64_t rows, int64_t batch_size);
    // A block of as many bytes as `wanted` said last; null takes it back. Waits for the queue.
    void lend(void* memory);
    // How much of what is on the host goes to the device at a time, at most.
    void set_window(int64_t bytes);

    // As Program::run. The work waits for what the caller's stream was given before. Where `wait`
    // is false and nothing is on the host, it may not be over when run returns: then the caller's
    // stream waits for it, and an error shows at the next call. Throws DeviceError, and
    // std::bad_alloc before a step has changed anything.
    //
    // The first step of a size runs kernel by kernel, so that workspaces are as large as they must
    // be; then steps are recorded and replayed.
    int64_t run(int64_t begin, int64_t end, int64_t batch_size, double seconds,
                std::optional<uint64_t> shuffle, void* stream, bool wait,
                const std::function<void()>& poll);

    // The row from which a run may go on after std::bad_alloc.
    int64_t reached() const { return reached_; }

    // Whether steps run kernel by kernel and the seconds of each node are added up. Those of a
    // Stretch are the first node's.
    void profile(bool on);
    const std::vector<double>& seconds() const { return seconds_; }

    bool is_index(int value) const { return value == index_; }
    // Of a Stretch: what a block of threads has for itself, and memory of the device for steps of a
    // size; 0 where there is none.
    int64_t block_bytes() const { return block_bytes_; }
    int64_t stretch_bytes(int64_t batch_size) const;
    // How many graphs there are, for tests.
    int64_t graphs() const;

 private:
    static constexpr int kSlots = 2;  // windows in memory at the same time
    class Pace;

    // A step, or several, by their size and all pointers.
    struct Recorded {
        int64_t seen = 0;  // 1: done once, kernel by kernel
        std::unique_ptr<Graph> graph;
    };
    using Key = std::vector<uint64_t>;

    // A Stretch for up to `most` samples, and where its values are.
    struct Fused {
        std::unique_ptr<Stretch> stretch;
        int64_t most = 0;
        std::vector<void*> bound;
        bool fresh = true;  // bound since it ran: it may not be recorded
    };

    // For what the block of device memory is laid out.
    struct Size {
        int64_t batch = 0, window = 0, order = 0;
    };

    bool is_window(int value) const;
    bool waits_on_host() const;
    int64_t window_rows(int64_t rows, int64_t batch) const;

    void check_bound(int64_t end) const;
    void check_sources() const;
    void check_order(int64_t begin, int64_t end) const;
    void check_shuffle() const;
    void fill_order_on_host(uint64_t seed, Pace& pace);
    void prepare_order(std::optional<uint64_t> shuffle);
    void set_cursor(int64_t row);

    void* address(int value, int64_t row, int64_t in_window, int slot) const;
    int64_t give_steps(int64_t row, int64_t in_window, int slot, int64_t batch, int64_t end,
                       const Pace& pace);
    void prepare_stretch(int slot);
    void give_step(int64_t n);
    void take_rows(int64_t n);
    size_t give_node(size_t node, int64_t n);
    void measure_step(int64_t n);
    void forget();

    void send_window(int slot, int64_t row, int64_t rows);
    void receive_window(int slot, int64_t row, int64_t rows);
    void take_window(int slot);
    int64_t run_windows(int64_t begin, int64_t end, int64_t batch, int64_t window, Pace& pace);
    void settle() noexcept;

    const Program& plan_;
    const Device& library_;
    const int device_;
    std::unique_ptr<Queue> queue_, copies_;
    int index_ = -1;  // the fed value that is an index of gathers; -1: there is none

    std::optional<StretchPlan> stretch_plan_;
    int64_t block_bytes_ = 0;
    Fused fused_[kSlots];  // one for each window, whose addresses stay; else the first alone
    int slot_ = 0;         // of the step that comes next

    std::vector<Given> given_;
    Size size_, asked_;
    char* memory_ = nullptr;
    std::vector<int64_t> arena_;  // where each value is in the block, or within a window
    std::vector<int64_t> windows_;
    int64_t slot_bytes_ = 0, slots_at_ = 0, order_at_ = 0, batch_index_at_ = 0, cursor_at_ = 0;
    void* pinned_ = nullptr;

    bool order_there_ = false;            // in memory of the device
    std::optional<uint64_t> order_seed_;  // from which it was made
    int64_t cursor_ = 0;                  // what is copied to the device

    std::map<Key, Recorded> recorded_;
    Key key_;                       // of the step that comes next
    std::vector<void*> addresses_;  // of all values in the step that comes next
    int64_t window_bytes_;
    std::unique_ptr<Event> paced_[2], copied_[kSlots], computed_[kSlots];
    struct Window {
        bool used = false;
        int64_t row = 0, rows = 0;
    };
    Window in_slot_[kSlots];
    int64_t reached_ = 0;
    int64_t pace_ = 1;  // steps of a group
    std::vector<double> seconds_;
    std::vector<std::unique_ptr<Event>> marks_;  // around each node, for profiles
};

}  // namespace convkit
