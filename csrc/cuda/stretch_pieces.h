// Where the values of a sample are in a block's shared memory, as Program::place_values does it for
// tiles.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

namespace convkit {
namespace cuda {

// From one node of the stretch to another, both included.
struct Piece {
    int64_t floats;
    int first, last;
    int64_t offset = -1;
};

class Pieces {
 public:
    int add(int64_t floats, int first, int last) {
        pieces_.push_back({floats, first, last});
        return static_cast<int>(pieces_.size()) - 1;
    }

    Piece& operator[](int32_t i) { return pieces_[static_cast<size_t>(i)]; }
    const std::vector<Piece>& all() const { return pieces_; }

    // Larger ones first, each at the lowest place that none of the same time covers. Returns the
    // numbers that they take together.
    int64_t place() {
        std::vector<Piece*> order, placed;
        for (Piece& piece : pieces_) order.push_back(&piece);
        std::stable_sort(order.begin(), order.end(),
                         [](const Piece* a, const Piece* b) { return a->floats > b->floats; });
        int64_t end = 0;
        for (Piece* piece : order) {
            std::vector<std::pair<int64_t, int64_t>> taken;
            for (const Piece* other : placed)
                if (other->first <= piece->last && piece->first <= other->last)
                    taken.emplace_back(other->offset, other->offset + room(*other));
            std::sort(taken.begin(), taken.end());
            piece->offset = 0;
            for (const auto& [from, to] : taken) {
                if (piece->offset + room(*piece) <= from) break;
                piece->offset = std::max(piece->offset, to);
            }
            end = std::max(end, piece->offset + room(*piece));
            placed.push_back(piece);
        }
        return end;
    }

 private:
    static int64_t room(const Piece& piece) { return (piece.floats + 15) / 16 * 16; }

    std::vector<Piece> pieces_;
};

}  // namespace cuda
}  // namespace convkit
