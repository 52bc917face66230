// A graph of kernel calls, planned for memory and run step after step without Python.
//
// The number of samples is an argument of run, not part of the plan. Values live in one of five
// places: fed (the caller's arrays, one row per sample), state (arrays that stay: parameters,
// optimizer state, counters), the arena (values of the whole batch), tile (values of one tile of
// samples, in a stretch of nodes that run depth-first) and sum (what the tiles of a batch add to).
//
// A node runs breadth-first, over the whole batch with threads inside it, or is part of a stretch:
// consecutive nodes that a thread runs one after the other on a tile before it takes the next.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kept.h"
#include "memory.h"
#include "registry.h"

namespace convkit {

enum class Place { kFed, kState, kArena, kTile, kSum };

struct Value {
    Place place;
    int64_t item_bytes;  // of one element
    int64_t elements;    // per sample if per_sample, else in all
    bool per_sample;
    char* data = nullptr;  // fed: row 0; state: the array
    int64_t rows = 0;      // fed, or the source of a gather: rows that data holds
    int64_t offset = -1;   // arena, tile, sum: set by the plan
    bool made = false;     // whether a node writes it

    int64_t bytes(int64_t n) const { return item_bytes * elements * (per_sample ? n : 1); }
};

struct Node {
    const KernelInfo* kernel;
    Spec spec;                   // of one sample; where `widened`, of one tile
    std::vector<int> arguments;  // value ids; -1: null
    bool per_sample;             // false: runs once a step, over values without samples
    bool tiled;                  // part of a stretch
    bool widened;                // in a stretch, by a kernel that takes a tile for one sample
    bool stores = false;  // set by the plan: begins the sums that it adds to, which are its alone
    // Null: what it works out of its weights is gone after each run.
    std::shared_ptr<Kept> kept = nullptr;
};

class Program {
 public:
    explicit Program(bool float64) : float64_(float64) {}

    int add_value(Place place, int64_t item_bytes, int64_t elements, bool per_sample);
    // Throws std::invalid_argument where the arguments do not fit the kernel, are read before a
    // node has made them, or are bound already.
    void add_node(const std::string& kernel, const Spec& spec, const std::vector<int>& arguments,
                  bool tiled);
    // How many tiles a thread takes through a stretch at a time, at most: fewer where the batch has
    // too few for two threads.
    void set_tiles_at_once(int64_t tiles);

    // Has a node keep what it works out of its weights until weights_changed(), here and in what is
    // made ready of this program afterwards. Throws std::invalid_argument where a node of the
    // program writes to a state that it reads.
    void keep_weights(int node);
    // To be called behind a change of states; runs may be under way.
    void weights_changed() const;

    // State: the whole array, or as the source of a gather `rows` rows. Fed: `rows` rows, one per
    // sample.
    void bind(int value, void* data, int64_t rows);

    // Runs the samples begin .. end in steps of batch_size; the last step may be smaller. Returns
    // the sample that it came to: less than `end` where `seconds` had passed after a whole step.
    // `poll` is called now and then, but never while a step updates state: it may throw.
    //
    // A gather's index is what was bound, and checked before each step. With `shuffle`, a seed, all
    // of what was bound is first filled anew with a permutation of its rows, whatever `begin` is;
    // a run that goes on with this order has none.
    int64_t run(int64_t begin, int64_t end, int64_t batch_size, double seconds,
                std::optional<uint64_t> shuffle, const std::function<void()>& poll);

    // The fed values that are an index of gathers.
    std::vector<int> indices() const;

    // Whether runs stay on one thread and add up the seconds of each node.
    void profile(bool on);
    const std::vector<double>& seconds() const { return seconds_; }

    // Bytes of the arena for n samples, and what they would be if no memory was shared; of what one
    // thread needs for its tiles; and of the sums.
    int64_t arena_bytes(int64_t n) const;
    int64_t unshared_bytes(int64_t n) const;
    int64_t tile_bytes() const;
    int64_t sum_bytes(int64_t n) const;

    // Where each value of one kind of memory lies in it, for n samples; -1: the others.
    std::vector<int64_t> place_values(Place place, int64_t n, int64_t* total) const;

    // Throws std::bad_alloc where n samples are so many that sizes might leave 64 bits.
    void check_size(int64_t n) const;

    const std::vector<Node>& nodes() const { return nodes_; }
    const std::vector<Value>& values() const { return values_; }
    bool float64() const { return float64_; }

 private:
    struct Poll;
    // A piece of a sum over the slots, and the node that updates a parameter by it at once.
    struct Update {
        int sum;
        int node;         // -1: none
        uint32_t sliced;  // a bit for each argument of the node that is cut like the sum
        int64_t begin, end;
    };

    int64_t touched_bytes(int64_t n) const;
    int64_t pass(int64_t n) const;
    int64_t slots(int64_t n) const;
    int64_t most_slots(int64_t n) const;
    int update_of(const Node& node, const std::vector<int>& readers) const;
    void plan_sums();
    void plan_updates();
    void reserve(int64_t n);
    void check_indices(int64_t begin, int64_t end) const;
    void check_shuffle() const;
    void shuffle_indices(uint64_t seed, Poll& poll);
    char* address(int value, int64_t row, int64_t first, char* tiles, int64_t slot) const;
    void call(const Node& node, const Context& context, int64_t n, void* const* arguments);
    void step(int64_t row, int64_t n, Poll& poll);
    void run_stretch(size_t begin, size_t end, int64_t row, int64_t n, Poll& poll);
    void run_tiles(size_t begin, size_t end, int64_t row, int64_t n, int64_t slot, bool fresh,
                   int64_t first, int64_t last);
    void add_up(const std::vector<Update>& updates, int64_t n);
    void add_up(const Update& update, int64_t n);

    bool float64_;
    std::vector<Value> values_;
    std::vector<Node> nodes_;
    int64_t tiles_at_once_ = 1;
    int64_t slot_bytes_ = 0;  // of one slot's sums
    // Set by reserve.
    int64_t capacity_ = -1;  // samples that the memory is laid out for
    Memory arena_, sums_;
    int64_t tile_bytes_ = 0;
    std::vector<int> cleared_;     // sums that begin as zeros in memory
    std::vector<Update> totals_;   // sums that other nodes read, added up behind their stretch
    std::vector<Update> updates_;  // the others, at the end of a step
    size_t first_update_ = 0;      // the nodes from here on are part of updates_
    std::vector<double> seconds_;  // per node, where a profile is taken
};

}  // namespace convkit
