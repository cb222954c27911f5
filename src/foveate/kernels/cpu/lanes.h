// Rows side by side: a row is a line of pixels of one head, and a vector holds the same entry of as many rows as it has
// lanes. All rows of an axial pass meet the same embeddings, so that every product is one of a vector and a number:
// heads of 8 channels fill the vectors as well as wide ones do, and no score on a diagonal is computed in vain.
#pragma once

#include <algorithm>

#include "lines.h"

namespace foveate {

template <typename T> using Wide = typename Vector<T, WIDE>::type;
template <typename T> using Narrow = typename Vector<T, NARROW>::type;
template <typename T> constexpr int64_t NARROW_LANES = NARROW / sizeof(T);

// Transpose a square of vectors; all shuffles have constant patterns, for which there are instructions.
__attribute__((always_inline)) inline void transpose_square(Narrow<float> *x) {
    typedef int32_t Pattern __attribute__((vector_size(NARROW)));
    constexpr Pattern low1{0, 8, 1, 9, 4, 12, 5, 13}, high1{2, 10, 3, 11, 6, 14, 7, 15};
    constexpr Pattern low2{0, 1, 8, 9, 4, 5, 12, 13}, high2{2, 3, 10, 11, 6, 7, 14, 15};
    constexpr Pattern low4{0, 1, 2, 3, 8, 9, 10, 11}, high4{4, 5, 6, 7, 12, 13, 14, 15};
    Narrow<float> y[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i += 2) {
        y[i] = __builtin_shuffle(x[i], x[i + 1], low1);
        y[i + 1] = __builtin_shuffle(x[i], x[i + 1], high1);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i += 4) {
        x[i] = __builtin_shuffle(y[i], y[i + 2], low2);
        x[i + 1] = __builtin_shuffle(y[i], y[i + 2], high2);
        x[i + 2] = __builtin_shuffle(y[i + 1], y[i + 3], low2);
        x[i + 3] = __builtin_shuffle(y[i + 1], y[i + 3], high2);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 4; ++i) {
        y[i] = __builtin_shuffle(x[i], x[i + 4], low4);
        y[i + 4] = __builtin_shuffle(x[i], x[i + 4], high4);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) x[i] = y[i];
}

__attribute__((always_inline)) inline void transpose_square(Narrow<double> *x) {
    typedef int64_t Pattern __attribute__((vector_size(NARROW)));
    constexpr Pattern low1{0, 4, 2, 6}, high1{1, 5, 3, 7}, low2{0, 1, 4, 5}, high2{2, 3, 6, 7};
    const Narrow<double> a = __builtin_shuffle(x[0], x[1], low1), b = __builtin_shuffle(x[0], x[1], high1);
    const Narrow<double> c = __builtin_shuffle(x[2], x[3], low1), d = __builtin_shuffle(x[2], x[3], high1);
    x[0] = __builtin_shuffle(a, c, low2);
    x[1] = __builtin_shuffle(b, d, low2);
    x[2] = __builtin_shuffle(a, c, high2);
    x[3] = __builtin_shuffle(b, d, high2);
}

// The rows of a group: where each starts, and how many of them there are (the lanes that are left repeat the last).
template <typename T> struct Rows {
    T *start[LANES<T>];
    int64_t pixel, count;
    Rows(Lines<T> all, const Sizes &s, int64_t first) : Rows(all, s, first, s.rows()) {}
    // Rows first, first + 1, … of all, up to `end`: line after line, over all images, and in a line head after head.
    Rows(Lines<T> all, const Sizes &s, int64_t first, int64_t end)
        : pixel(all.stride[3]), count(std::min(LANES<T>, end - first)) {
        for (int64_t lane = 0; lane < LANES<T>; ++lane) {
            const int64_t row = first + std::min(lane, count - 1), line = row / s.heads;
            start[lane] = all.at(line / s.lines, row % s.heads, line % s.lines, 0);
        }
    }
};

// Bring `channels` entries of pixel `at` to place(entry)[lane].
template <typename T, typename Place>
inline void interleave(const Rows<const T> &rows, int64_t at, int64_t channels, Place place) {
    constexpr int64_t side = NARROW_LANES<T>;
    int64_t j = 0;
    for (; j + side <= channels; j += side)
        for (int64_t lane = 0; lane < LANES<T>; lane += side) {
            Narrow<T> square[side];
#pragma GCC unroll 8
            for (int64_t i = 0; i < side; ++i)
                square[i] = *reinterpret_cast<const Narrow<T> *>(rows.start[lane + i] + at * rows.pixel + j);
            transpose_square(square);
#pragma GCC unroll 8
            for (int64_t i = 0; i < side; ++i) *reinterpret_cast<Narrow<T> *>(place(j + i) + lane) = square[i];
        }
    for (; j < channels; ++j)
        for (int64_t lane = 0; lane < LANES<T>; ++lane) place(j)[lane] = rows.start[lane][at * rows.pixel + j];
}

// What becomes of results: `store(lane, entry, target, value)` gets vectors of NARROW_LANES entries of a row, or single
// ones. The target is a pointer to entries, which are aligned as such.
template <typename T> struct Set {
    void operator()(int64_t, int64_t, T *to, const Narrow<T> &x) const { *reinterpret_cast<Narrow<T> *>(to) = x; }
    void operator()(int64_t, int64_t, T *to, T x) const { *to = x; }
};
template <typename T> struct Add {
    void operator()(int64_t, int64_t, T *to, const Narrow<T> &x) const { *reinterpret_cast<Narrow<T> *>(to) += x; }
    void operator()(int64_t, int64_t, T *to, T x) const { *to += x; }
};

// The way back.
template <typename T, typename Store>
inline void separate(const T *from, const Rows<T> &rows, int64_t at, int64_t channels, Store store) {
    constexpr int64_t side = NARROW_LANES<T>;
    int64_t j = 0;
    for (; j + side <= channels; j += side)
        for (int64_t lane = 0; lane < rows.count; lane += side) {
            Narrow<T> square[side];
#pragma GCC unroll 8
            for (int64_t i = 0; i < side; ++i)
                square[i] = *reinterpret_cast<const Narrow<T> *>(from + (j + i) * LANES<T> + lane);
            transpose_square(square);
#pragma GCC unroll 8
            for (int64_t i = 0; i < side; ++i)
                if (lane + i < rows.count) store(lane + i, j, rows.start[lane + i] + at * rows.pixel + j, square[i]);
        }
    for (; j < channels; ++j)
        for (int64_t lane = 0; lane < rows.count; ++lane)
            store(lane, j, rows.start[lane] + at * rows.pixel + j, from[j * LANES<T> + lane]);
}

// The embeddings of a line of n pixels, the offsets of a channel next to one another: [channel][offset].
template <typename T> struct Offsets {
    int64_t n, d, span;
    Buffer<T> data;
    Offsets(const T *window, int64_t n, int64_t d) : n(n), d(d), span(2 * n - 1), data(d * span) {
        transpose<T>(span, d, {window, d}, {data.data, span});
    }
    // From here on the offsets of the keys 0, 1, … as seen by query a.
    const T *seen_by(int64_t a) const { return data.data + n - 1 - a; }
};

// A pass over a group of rows at a time, values at [stripe of channels][pixel][channel of the stripe][lane], the rest
// at [pixel][channel][lane].
template <typename T> struct LanePass {
    using V = Wide<T>;
#if defined(__AVX512F__)
    static constexpr int QUERIES = 4;  // at a time: as many sums as there are registers for
#else
    static constexpr int QUERIES = 3;
#endif
    static constexpr int STRIPE = 4;
    const Offsets<T> &r;
    const int64_t n, d, c, wide, row;  // `wide`: c in whole stripes; `row`: of scores, with what is off the line
    Buffer<T> queries, values, out, scores;

    LanePass(const Offsets<T> &r, int64_t c)
        : r(r),
          n(r.n),
          d(r.d),
          c(c),
          wide((c + STRIPE - 1) / STRIPE * STRIPE),
          row(n + QUERIES - 1),
          queries((n * d + STRIPE) * LANES<T>),  // read in whole stripes
          values(n * wide * LANES<T>, wide != c),
          out(n * wide * LANES<T>, false),
          scores((QUERIES + QUERIES * row) * LANES<T>, false) {}

    void read(const Rows<const T> &q, const Rows<const T> &v) {
        for (int64_t k = 0; k < n; ++k) {
            interleave<T>(q, k, d, [&](int64_t j) { return queries.data + (k * d + j) * LANES<T>; });
            interleave<T>(v, k, c, [&](int64_t i) {
                return values.data + ((i / STRIPE * n + k) * STRIPE + i % STRIPE) * LANES<T>;
            });
        }
    }

    template <typename Store> void write(const Rows<T> &y, Store store) const {
        for (int64_t a = 0; a < n; ++a) separate<T>(out.data + a * wide * LANES<T>, y, a, c, store);
    }

    // s[u][k] = Σ_j q[u][j] r[j][k − u] for COUNT queries that follow one another and the keys on OFFSETS diagonals,
    // each of which shares its embedding.
    template <int COUNT, int OFFSETS>
    __attribute__((always_inline)) inline void score(const V *q, const T *embeddings, V *s) const {
        const int64_t d = this->d, span = r.span, row = this->row;
        V sums[COUNT][OFFSETS];
#pragma GCC unroll 4
        for (int u = 0; u < COUNT; ++u)
#pragma GCC unroll 4
            for (int o = 0; o < OFFSETS; ++o) sums[u][o] = V{};
        for (int64_t j = 0; j < d; ++j, embeddings += span, ++q) {
            V entries[COUNT];
#pragma GCC unroll 4
            for (int u = 0; u < COUNT; ++u) entries[u] = q[u * d];
#pragma GCC unroll 4
            for (int o = 0; o < OFFSETS; ++o) {
                const V embedding = embeddings[o] - V{};
#pragma GCC unroll 4
                for (int u = 0; u < COUNT; ++u) sums[u][o] += entries[u] * embedding;
            }
        }
#pragma GCC unroll 4
        for (int u = 0; u < COUNT; ++u)
#pragma GCC unroll 4
            for (int o = 0; o < OFFSETS; ++o) s[u * row + u + o] = sums[u][o];
    }

    // The scores of queries a, a + 1, …; beside those of each there is room for what is off its line.
    template <int COUNT> __attribute__((noinline)) void score_queries(int64_t a, V *s) const {
        const V *q = reinterpret_cast<const V *>(queries.data) + a * d;
        const T *embeddings = r.seen_by(a);
        int64_t k = 1 - COUNT;
        for (; k + 4 <= n; k += 4) score<COUNT, 4>(q, embeddings + k, s + k);
        for (; k < n; ++k) score<COUNT, 1>(q, embeddings + k, s + k);
    }

    // y[u][i] = Σ_k s[u][k] v[k][i] for COUNT queries and a stripe of channels.
    template <int COUNT>
    __attribute__((noinline)) static void weigh(int64_t n, int64_t wide, int64_t row, const V *s, const V *v, V *y) {
        V sums[COUNT][STRIPE];
#pragma GCC unroll 4
        for (int u = 0; u < COUNT; ++u)
#pragma GCC unroll 4
            for (int i = 0; i < STRIPE; ++i) sums[u][i] = V{};
        for (int64_t k = 0; k < n; ++k, v += STRIPE) {
            V stripe[STRIPE];
#pragma GCC unroll 4
            for (int i = 0; i < STRIPE; ++i) stripe[i] = v[i];
#pragma GCC unroll 4
            for (int u = 0; u < COUNT; ++u) {
                const V weight = s[u * row + k];
#pragma GCC unroll 4
                for (int i = 0; i < STRIPE; ++i) sums[u][i] += weight * stripe[i];
            }
        }
#pragma GCC unroll 4
        for (int u = 0; u < COUNT; ++u)
#pragma GCC unroll 4
            for (int i = 0; i < STRIPE; ++i) y[u * wide + i] = sums[u][i];
    }

    template <int COUNT> void tile(int64_t a) {
        V *s = reinterpret_cast<V *>(scores.data) + QUERIES, *y = reinterpret_cast<V *>(out.data) + a * wide;
        const V *v = reinterpret_cast<const V *>(values.data);
        score_queries<COUNT>(a, s);
        for (int64_t i = 0; i < wide; i += STRIPE) weigh<COUNT>(n, wide, row, s, v + i * n, y + i);
    }

#if defined(__AVX512F__)
    // 8 channels of queries and values fit the registers: the scores never leave them.
    __attribute__((noinline)) void eight(int64_t a) {
        const V *q = reinterpret_cast<const V *>(queries.data) + a * 8;
        const V *v = reinterpret_cast<const V *>(values.data), *w = v + n * STRIPE;
        V *y = reinterpret_cast<V *>(out.data) + a * 8;
        const T *embeddings = r.seen_by(a);
        const int64_t span = r.span;
        V query[8], sums[8];
#pragma GCC unroll 8
        for (int j = 0; j < 8; ++j) query[j] = q[j], sums[j] = V{};
        for (int64_t k = 0; k < n; ++k, v += STRIPE, w += STRIPE) {
            V s = V{};
#pragma GCC unroll 8
            for (int j = 0; j < 8; ++j) s += query[j] * embeddings[j * span + k];
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) sums[i] += s * v[i], sums[4 + i] += s * w[i];
        }
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) y[i] = sums[i];
    }
#endif

    void run() {
#if defined(__AVX512F__)
        if (d == 8 && c == 8) {
            for (int64_t a = 0; a < n; ++a) eight(a);
            return;
        }
#endif
        int64_t a = 0;
        for (; a + QUERIES <= n; a += QUERIES) tile<QUERIES>(a);
        if (n - a >= 2) tile<2>(a), a += 2;
        if (n - a == 1) tile<1>(a);
    }
};

}  // namespace foveate
