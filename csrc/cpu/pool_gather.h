// Gradients of pooling where windows overlap: each value of dx gathers from the
// windows that it lies in, and is written once.
//
// A line of x is laid apart by the columns' phases (column % stride), so that a tap's values for
// neighbouring windows lie side by side, whatever the stride and the channels: all loops run over
// whole lines. Of the last few lines of x, and of the last few lines of windows, what was made is
// kept: a ring of each.
#pragma once

#include <algorithm>
#include <limits>

#include "context.h"
#include "stream.h"
#include "windows.h"

namespace convkit {
namespace CONVKIT_ISA {

// How the columns of x and of the windows lie in lines. Pixel m of phase p is column
// m * stride + p - pad of x; tap j of window `out` is pixel out + j dilation / stride of phase
// j dilation % stride.
struct PhaseLines {
    struct Tap {
        int64_t phase, offset;  // in values
    };
    int64_t channels, stride, pad, width, windows, window;
    int64_t pixels;  // of a phase's line, those beyond x too
    int64_t lead;    // what stands before a line of windows: the most a tap shifts, in values
    const Tap* taps = nullptr;

    explicit PhaseLines(const Pool2d& s)
        : channels(s.channels),
          stride(s.stride_width),
          pad(s.pad_left),
          width(s.width),
          windows(s.out_width),
          window(s.pool_width) {
        const int64_t shift = (window - 1) * s.dilation_width / stride;
        pixels = std::max((pad + width + stride - 1) / stride, windows + shift);
        lead = shift * channels;
    }
    // The same, with what is known of each tap in `memory`, since divisions take long.
    PhaseLines(const Pool2d& s, Tap* memory) : PhaseLines(s) {
        for (int64_t j = 0; j < window; ++j) {
            const int64_t column = j * s.dilation_width;
            memory[j] = {column % stride, column / stride * channels};
        }
        taps = memory;
    }
    // Of a phase, the pixels before x and those inside it.
    int64_t before(int64_t phase) const {
        return std::max<int64_t>(0, pad - phase + stride - 1) / stride;
    }
    int64_t inside(int64_t phase) const {
        return std::max<int64_t>(0, (pad + width - phase + stride - 1) / stride - before(phase));
    }
    template <class T>
    int64_t pitch() const {  // of every line
        return lead + pixels * channels + kLanes<T>;
    }
};

// Copies pixels, `step` apart, side by side; what stands behind the last is overwritten.
template <class T>
static inline void copy_pixels(int64_t count, int64_t channels, const T* from, int64_t step,
                               const T* from_end, T* to) {
    int64_t i = 0;
    if (channels <= kLanes<T>) {
        const T* const last = from_end - kLanes<T>;
        for (; i < count && from <= last; ++i, from += step, to += channels) {
            store(to, load(from));
        }
    }
    for (; i < count; ++i, from += step, to += channels) {
        for (int64_t c = 0; c < channels; c += kLanes<T>) {
            store(to + c, load_run(from + c, from_end, channels - c));
        }
    }
}

// phases (stride, pitch) = a line of x, -infinity beyond it.
template <class T>
static inline void lay_apart(const PhaseLines& p, const T* x, const T* x_end, T* phases) {
    const int64_t pitch = p.pitch<T>(), values = p.pixels * p.channels;
    const T nothing = -std::numeric_limits<T>::infinity();
    for (int64_t phase = 0; phase < p.stride; ++phase) {
        T* const line = phases + phase * pitch;
        const int64_t before = p.before(phase), inside = p.inside(phase);
        std::fill(line, line + before * p.channels, nothing);
        const T* from = x + (before * p.stride + phase - p.pad) * p.channels;
        T* to = line + before * p.channels;
        if (p.stride == 1) {
            std::memcpy(to, from, static_cast<size_t>(inside * p.channels) * sizeof(T));
        } else {
            copy_pixels(inside, p.channels, from, p.stride * p.channels, x_end, to);
        }
        std::fill(line + (before + inside) * p.channels, line + values, nothing);
    }
}

// The other way: dx (width, channels) from phases (stride, pitch). What stands behind it, up to
// dx_end, is overwritten.
template <class T>
static inline void lay_together(const PhaseLines& p, const T* phases, T* dx, const T* dx_end) {
    const int64_t pitch = p.pitch<T>(), wrap = p.channels - p.stride * pitch;
    int64_t column = 0, phase = p.pad % p.stride;
    const T* from = phases + p.pad / p.stride * p.channels + phase * pitch;
    const auto next = [&]() CONVKIT_INLINE {
        ++column;
        dx += p.channels;
        from += pitch;
        if (++phase == p.stride) {
            phase = 0;
            from += wrap;
        }
    };
    if (p.channels <= kLanes<T>) {
        const T* const last = dx_end - kLanes<T>;
        for (; column < p.width && dx <= last; next()) store(dx, load(from));
    }
    for (; column < p.width; next()) {
        for (int64_t c = 0; c < p.channels; c += kLanes<T>) {
            store_run(dx + c, dx_end, load(from + c), p.channels - c);
        }
    }
}

// A tap of many windows: the line of its values, and its number.
template <class T>
struct Term {
    const T* line;
    T tap;
};

// ---- what a line of windows has to give ---------------------------------------------------------
// Each has: kLines, the lines of `pitch` values that it keeps of a line of windows; make(), which
// fills them; and of such a line share(line, at, tap), what tap number `tap` (row by row) gets.

// The gradient of an average is dy / divisor, for all taps.
template <class T>
struct AverageShares {
    static constexpr int64_t kLines = 1;
    const Pool2d& s;
    const PhaseLines& p;
    T* counts;  // of the values in a window's columns, for each value of a line

    static int64_t memory(const Pool2d&, const PhaseLines& p) { return p.pitch<T>(); }

    AverageShares(const Pool2d& s, const PhaseLines& p, T* memory, int64_t*, Term<T>*, const T*,
                  const T*)
        : s(s), p(p), counts(memory) {
        for (int64_t out = 0; out < p.windows; ++out) {
            const T count = static_cast<T>(counted_columns(s, out * s.stride_width - s.pad_left));
            std::fill_n(counts + out * p.channels, p.channels, count);
        }
    }

    // Of line `row` of windows, counted through all samples.
    void make(int64_t row, const T* dy, T* line) {
        const int64_t top = row % s.out_height * s.stride_height - s.pad_top;
        const T rows = static_cast<T>(counted_rows(s, top));
        const int64_t values = p.windows * p.channels;
        dy += row * values;
        for_each_vector(line, 0, values, [&](int64_t k, auto part) CONVKIT_INLINE {
            put(line + k, get(dy + k, part) / (get(counts + k, part) * rows), part);
        });
    }

    static CONVKIT_INLINE inline Vec<T> share(const T* line, int64_t, Vec<T>) { return load(line); }
};

// That of a maximum is dy for the first maximum of the window, found again from x.
template <class T>
struct MaxShares {
    static constexpr int64_t kLines = 2;  // dy, and the winners' taps
    const Pool2d& s;
    const PhaseLines& p;
    int64_t pitch, ring;
    const T *x, *x_end;
    T *first, *phases;  // the first tap inside x, for each value of a line; the ring's lines of x
    int64_t* rows;      // which these are
    Term<T>* taps;      // room for a window's

    static int64_t rows_of(const Pool2d& s) { return (s.pool_height - 1) * s.dilation_height + 1; }
    static int64_t memory(const Pool2d& s, const PhaseLines& p) {
        return p.pitch<T>() * (1 + rows_of(s) * p.stride);
    }

    MaxShares(const Pool2d& s, const PhaseLines& p, T* memory, int64_t* rows, Term<T>* taps,
              const T* x, const T* x_end)
        : s(s),
          p(p),
          pitch(p.pitch<T>()),
          ring(rows_of(s)),
          x(x),
          x_end(x_end),
          first(memory),
          phases(memory + pitch),
          rows(rows),
          taps(taps) {
        std::fill_n(rows, ring, int64_t{-1});
        for (int64_t out = 0; out < p.windows; ++out) {
            std::fill_n(first + out * p.channels, p.channels,
                        static_cast<T>(column_taps(s, out).first));
        }
    }

    const T* line_of(int64_t row) {
        const int64_t slot = row % ring;
        T* const line = phases + slot * p.stride * pitch;
        if (rows[slot] != row) {
            rows[slot] = row;
            lay_apart(p, x + row * p.width * p.channels, x_end, line);
        }
        return line;
    }

    template <int kTaps>
    void find(int64_t count, T first_row, T* winners) const {
        const int64_t all = kTaps ? kTaps : count;
        Term<T> known[kTaps + 1];
        for (int t = 0; t < kTaps; ++t) known[t] = taps[t];
        const int64_t values = p.windows * p.channels;
        for (int64_t k = 0; k < values; k += kLanes<T>) {
            const Winner<T> start{broadcast(-std::numeric_limits<T>::infinity()),
                                  load(first + k) + first_row};
            store(winners + k, winning_tap(start, [&](auto meet) CONVKIT_INLINE {
                      for (int64_t t = 0; t < all; ++t) {
                          const Term<T>& term = kTaps ? known[t] : taps[t];
                          meet(load(term.line + k), broadcast(term.tap));
                      }
                  }));
        }
    }

    void make(int64_t row, const T* dy, T* line) {
        const int64_t values = p.windows * p.channels;
        std::memcpy(line, dy + row * values, static_cast<size_t>(values) * sizeof(T));
        const Taps inside = row_taps(s, row % s.out_height);
        int64_t count = 0;
        for (int64_t i = inside.first; i < inside.last; ++i) {
            const T* const from =
                line_of(row / s.out_height * s.height + inside.origin + i * s.dilation_height);
            for (int64_t j = 0; j < p.window; ++j) {
                taps[count++] = {from + p.taps[j].phase * pitch + p.taps[j].offset,
                                 static_cast<T>(i * p.window + j)};
            }
        }
        T* const winners = line + pitch;
        const T first_row = static_cast<T>(inside.first * p.window);
        if (count == 4) {
            find<4>(count, first_row, winners);
        } else if (count == 9) {
            find<9>(count, first_row, winners);
        } else {
            find<0>(count, first_row, winners);
        }
        // Whole vectors were stored, so beyond the end too.
        std::fill(winners + values, line + 2 * pitch - p.lead, T(-1));
    }

    static CONVKIT_INLINE inline Vec<T> share(const T* line, int64_t pitch, Vec<T> tap) {
        return load(line + pitch) == tap ? load(line) : Vec<T>{};
    }
};

// ---- gathering ----------------------------------------------------------------------------------
// y (count) = the sum of all terms' shares; whole vectors are written.
template <class Shares, int kTerms, class T>
static inline void gather_terms(int64_t terms, const Term<T>* from, int64_t pitch, int64_t count,
                                T* y) {
    const int64_t all = kTerms ? kTerms : terms;
    Term<T> known[kTerms + 1];
    for (int t = 0; t < kTerms; ++t) known[t] = from[t];
    for (int64_t k = 0; k < count; k += kLanes<T>) {
        Vec<T> sum{};
        for (int64_t t = 0; t < all; ++t) {
            const Term<T>& term = kTerms ? known[t] : from[t];
            sum += Shares::share(term.line + k, pitch, broadcast(term.tap));
        }
        store(y + k, sum);
    }
}

template <class Shares, class T>
static inline void gather_phase(int64_t terms, const Term<T>* from, int64_t pitch, int64_t count,
                                T* y) {
    switch (terms) {
        case 1:
            return gather_terms<Shares, 1>(terms, from, pitch, count, y);
        case 2:
            return gather_terms<Shares, 2>(terms, from, pitch, count, y);
        case 4:
            return gather_terms<Shares, 4>(terms, from, pitch, count, y);
        default:
            return gather_terms<Shares, 0>(terms, from, pitch, count, y);
    }
}

// x is null where the shares do not need it.
template <class Shares, class T>
static inline void gather_rows(const Context& context, const Pool2d& s, int64_t n, const T* dy,
                               const T* x, T* dx) {
    // A line of windows that a row of x lies in, and the row's tap in it.
    struct Covering {
        const T* values;
        int64_t tap;
    };
    const int64_t width = s.width * s.channels, window = s.pool_height * s.pool_width;
    const int64_t reach = (s.pool_height - 1) * s.dilation_height;
    const int64_t ring = reach / s.stride_height + 1;  // lines of windows that a row lies in
    const bool past = streams<T>(n * s.input_size(), dx, x);
    const double cost = 0.2 * static_cast<double>(width) *
                        (1 + 0.25 * static_cast<double>(window) /
                                 static_cast<double>(s.stride_height * s.stride_width));
    parallel_stores(context, n * s.height, cost, [&](int64_t begin, int64_t end) {
        auto* const memory = scratch<PhaseLines::Tap>(kPackA, s.pool_width + ring + reach + 1);
        const PhaseLines p(s, memory);
        int64_t* const lines = reinterpret_cast<int64_t*>(memory + s.pool_width);
        std::fill_n(lines, ring, int64_t{-1});
        Term<T>* const terms = scratch<Term<T>>(kPackB, 2 * window + s.pool_height);
        auto* const coverings = reinterpret_cast<Covering*>(terms + 2 * window);

        const int64_t pitch = p.pitch<T>(), kept = ring * Shares::kLines * pitch;
        T* const values = scratch<T>(kLocal, kept + p.stride * pitch + Shares::memory(s, p));
        T* const phases = values + kept;
        // Before and after the lines of windows there is nothing to give.
        std::fill_n(values, kept, T(0));
        Shares shares(s, p, phases + p.stride * pitch, lines + ring, terms + window, x,
                      x + n * s.input_size());
        const Line<T> whole(past, width);
        for (int64_t row = begin; row < end; ++row) {
            const int64_t sample = row / s.height, at = row - sample * s.height + s.pad_top;
            int64_t covered = 0;
            for (int64_t i = s.pool_height - 1; i >= 0; --i) {  // the uppermost first
                const int64_t top = at - i * s.dilation_height;
                if (top < 0) continue;
                const int64_t out = top / s.stride_height;
                if (out * s.stride_height != top || out >= s.out_height) continue;
                const int64_t line = sample * s.out_height + out, slot = line % ring;
                T* const give = values + slot * Shares::kLines * pitch + p.lead;
                if (lines[slot] != line) {
                    lines[slot] = line;
                    shares.make(line, dy, give);
                }
                coverings[covered++] = {give, i * p.window};
            }
            for (int64_t phase = 0; phase < p.stride; ++phase) {
                int64_t count = 0;
                for (int64_t k = 0; k < covered; ++k) {
                    for (int64_t j = p.window - 1; j >= 0; --j) {
                        if (p.taps[j].phase != phase) continue;
                        terms[count++] = {coverings[k].values - p.taps[j].offset,
                                          static_cast<T>(coverings[k].tap + j)};
                    }
                }
                gather_phase<Shares>(count, terms, pitch, p.pixels * p.channels,
                                     phases + phase * pitch);
            }
            T* const to = whole.at(dx + row * width);
            lay_together(p, phases, to, past ? to + width : dx + end * width);
            whole.copy_to(dx + row * width);
        }
    });
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
