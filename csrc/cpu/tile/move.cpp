// Samples into tiles and out of them, and what else depends on which sample a lane is.
//   tile_gather          gather (data.cpp) into y (tiles, size, kTile); _labels: gather_labels;
//                        lanes beyond the n-th sample repeat it
//   untile               x (tiles, size, kTile) -> y (n, size)
//   tile_transpose       x (tiles, rows, columns, kTile) -> y (tiles, columns, rows, kTile)
//   tile_dropout         dropout (dropout.cpp) of x (tiles, size, kTile), with the same numbers
//   tile_mean_backward   dy (1) -> dx (tiles, rows, kTile) = dy / (samples of the batch * rows);
//                        0 in lanes beyond the n-th sample
#include <algorithm>

#include "cpu_kernels.h"
#include "philox.h"
#include "source.h"
#include "tile/tile.h"
#include "tile/transpose.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

// kLanes values of any type as T.
template <class T, class Source>
inline CONVKIT_INLINE Vec<T> load_as(const Source* p) {
    Vec<T> v;
    for (int i = 0; i < kLanes<T>; ++i) v[i] = static_cast<T>(p[i]);
    return v;
}

// GCC finds no short way by itself from bytes to wide vectors.
#if defined(__AVX512F__)
template <>
inline CONVKIT_INLINE Vec<float> load_as<float>(const uint8_t* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm512_maskz_cvtepi32_ps(0xffff, _mm512_maskz_cvtepu8_epi32(0xffff, bytes));
}
#elif defined(__AVX2__)
template <>
inline CONVKIT_INLINE Vec<float> load_as<float>(const uint8_t* p) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
}
#endif

// The rows from which a tile comes, one for each lane.
template <class Source>
struct TileRows {
    const Source* row[kTile];

    TileRows(const Source* source, const int64_t* index, int64_t size, int64_t n, int64_t first) {
        for (int64_t lane = 0; lane < kTile; ++lane) {
            const int64_t sample = std::min(first + lane, n - 1);
            row[lane] = source + (index ? index[sample] : sample) * size;
        }
    }

    template <class Y, class Convert>
    void value_by_value(int64_t size, Y* y, Convert convert) const {
        for (int64_t lane = 0; lane < kTile; ++lane) {
            for (int64_t k = 0; k < size; ++k) y[k * kTile + lane] = convert(row[lane][k]);
        }
    }

    // Squares of values and lanes; the last one may cover a part of the one before once more.
    template <class T>
    void by_squares(int64_t size, T* y, T scale, T offset) const {
        constexpr int kSide = kLanes<T>;
        for (int64_t k = 0; k < size; k += kSide) {
            const int64_t begin = std::min(k, size - kSide);
            for (int64_t part = 0; part < kTile; part += kSide) {
                Square<T> square;
#pragma GCC unroll 16
                for (int i = 0; i < kSide; ++i) {
                    square.row[i] = load_as<T>(row[part + i] + begin) * scale + offset;
                }
                transpose_square(square);
#pragma GCC unroll 16
                for (int i = 0; i < kSide; ++i) {
                    store(y + (begin + i) * kTile + part, square.row[i]);
                }
            }
        }
    }
};

// ---- dropout ------------------------------------------------------------------------------------
constexpr int64_t kDrawnAtOnce = 16;  // values

// The numbers of each lane's elements element[lane] .. element[lane] + kDrawnAtOnce - 1, which
// stand in kBlocks of Philox's blocks: one more where they need not begin with a block.
template <int kBlocks>
void draw(const Dropout& s, const int64_t* random, const int64_t (&element)[kTile],
          uint32_t (&drawn)[kDrawnAtOnce][kTile]) {
    int64_t block[kBlocks * kTile];
    for (int64_t i = 0; i < kBlocks * kTile; ++i) block[i] = element[i % kTile] / 4 + i / kTile;
    const auto numbers = philox_blocks(random[0], random[1], s.stream, block);
    for (int64_t i = 0; i < kDrawnAtOnce; ++i) {
        const auto number = [&](int64_t k, int64_t lane) {
            return numbers.value[k % 4][k / 4 * kTile + lane];
        };
        for (int64_t lane = 0; lane < kTile; ++lane) {
            drawn[i][lane] = number(i, lane);
            if constexpr (kBlocks * 4 > kDrawnAtOnce) {
                const int64_t phase = element[lane] % 4;
                drawn[i][lane] = phase == 1 ? number(i + 1, lane) : drawn[i][lane];
                drawn[i][lane] = phase == 2 ? number(i + 2, lane) : drawn[i][lane];
                drawn[i][lane] = phase == 3 ? number(i + 3, lane) : drawn[i][lane];
            }
        }
    }
}

}  // namespace

template <class T>
void tile_gather(const Context&, const Gather& s, int64_t n, const void* source,
                 const int64_t* index, T* y) {
    const T scale = static_cast<T>(s.scale), offset = gather_offset<T>(s);
    with_source(s.type, source, [&](const auto* x) {
        for (int64_t first = 0; first < n; first += kTile) {
            const TileRows rows(x, index, s.size, n, first);
            T* to = y + first * s.size;
            if (s.size >= kLanes<T>) {
                rows.by_squares(s.size, to, scale, offset);
            } else {
                rows.value_by_value(s.size, to,
                                    [=](auto v) { return static_cast<T>(v) * scale + offset; });
            }
        }
    });
}

template <class T>
void tile_gather_labels(const Context&, const Gather& s, int64_t n, const void* source,
                        const int64_t* index, int32_t* y) {
    with_source(s.type, source, [&](const auto* x) {
        for (int64_t first = 0; first < n; first += kTile) {
            const TileRows rows(x, index, s.size, n, first);
            rows.value_by_value(s.size, y + first * s.size, [](auto v) { return label(v); });
        }
    });
}

template <class T>
void untile(const Context&, const Elementwise& s, int64_t n, const T* x, T* y) {
    constexpr int kSide = kLanes<T>;
    const T* end = y + n * s.size;
    for (int64_t first = 0; first < n; first += kTile) {
        const T* from = x + first * s.size;
        for (int64_t k = 0; k < s.size; k += kSide) {
            const int64_t begin = std::max<int64_t>(std::min(k, s.size - kSide), 0);
            for (int64_t part = first; part < std::min(first + kTile, n); part += kSide) {
                Square<T> square;
#pragma GCC unroll 16
                for (int i = 0; i < kSide; ++i) {
                    const int64_t value = std::min(begin + i, s.size - 1);
                    square.row[i] = load(from + value * kTile + part % kTile);
                }
                transpose_square(square);
#pragma GCC unroll 16
                for (int i = 0; i < kSide; ++i) {
                    if (part + i < n) {
                        store_run(y + (part + i) * s.size + begin, end, square.row[i], s.size);
                    }
                }
            }
        }
    }
}

template <class T>
void tile_transpose(const Context&, const Transpose& s, int64_t n, const T* x, T* y) {
    for (int64_t tile = 0; tile < in_tiles(n) / kTile; ++tile) {
        for (int64_t row = 0; row < s.rows; ++row) {
            for (int64_t column = 0; column < s.columns; ++column) {
                std::memcpy(y + (column * s.rows + row) * kTile, x, kTile * sizeof(T));
                x += kTile;
            }
        }
        y += s.rows * s.columns * kTile;
    }
}

template <class T>
void tile_dropout(const Context& context, const Dropout& s, int64_t n, const T* x,
                  const int64_t* random, T* y) {
    const T scale = static_cast<T>(1 / (1 - s.rate));
    const uint32_t dropped_below = philox_below(s.rate);
    for (int64_t first = 0; first < n; first += kTile) {
        for (int64_t k = 0; k < s.size; k += kDrawnAtOnce) {
            int64_t element[kTile];
            for (int64_t lane = 0; lane < kTile; ++lane) {
                element[lane] = (context.first + first + lane) * s.size + k;
            }
            uint32_t drawn[kDrawnAtOnce][kTile];
            if (s.size % 4 == 0) {
                draw<kDrawnAtOnce / 4>(s, random, element, drawn);
            } else {
                draw<kDrawnAtOnce / 4 + 1>(s, random, element, drawn);
            }
            const int64_t values = std::min(kDrawnAtOnce, s.size - k);
            for (int64_t i = 0; i < values; ++i) {
                const int64_t at = first * s.size + (k + i) * kTile;
                T kept[kTile];  // apart from y, which may be x: else the compiler would branch
                for (int64_t lane = 0; lane < kTile; ++lane) {
                    const T scaled = x[at + lane] * scale;
                    kept[lane] = (drawn[i][lane] >> 8) < dropped_below ? T(0) : scaled;
                }
                std::memcpy(y + at, kept, sizeof kept);
            }
        }
    }
}

template <class T>
void tile_mean_backward(const Context& context, const Mean& s, int64_t n, const T* dy, T* dx) {
    const int64_t batch = context.batch > 0 ? context.batch : n;
    const T each = dy[0] / static_cast<T>(batch * s.rows);
    for (int64_t first = 0; first < n; first += kTile) {
        T lanes[kTile];
        for (int64_t lane = 0; lane < kTile; ++lane) lanes[lane] = first + lane < n ? each : T(0);
        T* to = dx + first * s.rows;
        for (int64_t row = 0; row < s.rows; ++row) {
            std::memcpy(to + row * kTile, lanes, sizeof lanes);
        }
    }
}

INSTANTIATE(tile_gather)
INSTANTIATE(tile_gather_labels)
INSTANTIATE(untile)
INSTANTIATE(tile_transpose)
INSTANTIATE(tile_dropout)
INSTANTIATE(tile_mean_backward)

}  // namespace CONVKIT_ISA
}  // namespace convkit
