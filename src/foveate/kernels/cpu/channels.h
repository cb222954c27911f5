// Channels side by side: the axial pass over a line of all heads at a time. A vector holds scores of keys that follow
// one another, or channels of a value. Nothing is transposed, and results are written in place: where the heads are
// wide that is less work than rows side by side (lanes.h). Every sum is the same, in the same order.
#pragma once

#include "lanes.h"

namespace foveate {

// What becomes of results.
template <typename T, int64_t bytes> using VectorOf = typename Vector<T, bytes>::type;
template <typename T> struct SetVector {
    template <int64_t bytes> void put(int64_t, T *to, const VectorOf<T, bytes> &x) const {
        *reinterpret_cast<VectorOf<T, bytes> *>(to) = x;
    }
};
template <typename T> struct AddVector {
    template <int64_t bytes> void put(int64_t, T *to, const VectorOf<T, bytes> &x) const {
        *reinterpret_cast<VectorOf<T, bytes> *>(to) += x;
    }
};

template <typename T> struct ChannelPass {
#if defined(__AVX512F__)
    static constexpr int QUERIES = 8, HEADS = 8;  // at a time: as many sums as there are registers for
#else
    static constexpr int QUERIES = 4, HEADS = 4;
#endif
    const Offsets<T> &r;
    const int64_t heads, n, d, c, row, together;  // scores of a query and head; queries at a time
    Buffer<T> values, scores;

    // Whether lines of such heads are faster so than side by side.
    static bool suits(const Sizes &s) {
        return s.heads % 4 == 0 && s.c % NARROW_LANES<T> == 0 && s.c > NARROW_LANES<T> && s.d + s.c > s.n;
    }

    ChannelPass(const Offsets<T> &r, const Sizes &s)
        : r(r),
          heads(s.heads),
          n(r.n),
          d(r.d),
          c(s.c),
          row(padded<T>(n)),
          together((n + (n + QUERIES - 1) / QUERIES - 1) / ((n + QUERIES - 1) / QUERIES)),
          values(n * heads * c, false),
          scores(HEADS * QUERIES * row, false) {}

    // Of pixels `stride` apart, whose heads are next to one another.
    struct Line {
        const T *data;
        int64_t head, pixel;
        Line(Lines<const T> all, int64_t image, int64_t line)
            : data(all.at(image, 0, line, 0)), head(all.stride[1]), pixel(all.stride[3]) {}
    };

    // s[h][k] = Σ_j q[h][j] r[j][k] for COUNT heads and some vectors of keys.
    template <int COUNT, int64_t bytes, int VECTORS>
    __attribute__((always_inline)) inline void score(const T *q, int64_t head, const T *embeddings, T *s) const {
        using V = typename Vector<T, bytes>::type;
        constexpr int64_t lanes = Vector<T, bytes>::lanes;
        V sums[COUNT][VECTORS];
#pragma GCC unroll 8
        for (int h = 0; h < COUNT; ++h)
#pragma GCC unroll 2
            for (int i = 0; i < VECTORS; ++i) sums[h][i] = V{};
        for (int64_t j = 0; j < d; ++j, embeddings += r.span) {
            V keys[VECTORS];
#pragma GCC unroll 2
            for (int i = 0; i < VECTORS; ++i) keys[i] = *reinterpret_cast<const V *>(embeddings + i * lanes);
#pragma GCC unroll 8
            for (int h = 0; h < COUNT; ++h) {
                const T entry = q[h * head + j];
#pragma GCC unroll 2
                for (int i = 0; i < VECTORS; ++i) sums[h][i] += entry * keys[i];
            }
        }
#pragma GCC unroll 8
        for (int h = 0; h < COUNT; ++h)
#pragma GCC unroll 2
            for (int i = 0; i < VECTORS; ++i) *reinterpret_cast<V *>(s + h * QUERIES * row + i * lanes) = sums[h][i];
    }

    template <int COUNT>
    __attribute__((noinline)) void score_query(const T *q, int64_t head, const T *embeddings, T *s) const {
        constexpr int64_t lanes = LANES<T>;
        int64_t k = 0;
        for (; k + 2 * lanes <= row; k += 2 * lanes) score<COUNT, WIDE, 2>(q, head, embeddings + k, s + k);
        for (; k + lanes <= row; k += lanes) score<COUNT, WIDE, 1>(q, head, embeddings + k, s + k);
        if (k < row) score<COUNT, NARROW, 1>(q, head, embeddings + k, s + k);
    }

    // y[u] = Σ_k s[u][k] v[k] for COUNT queries and some vectors of channels.
    template <int COUNT, int64_t bytes, int VECTORS, typename Store>
    __attribute__((always_inline)) inline void weigh(const T *s, const T *v, int64_t pixel, T *y, int64_t y_pixel,
                                                     int64_t channel, Store store) const {
        using V = typename Vector<T, bytes>::type;
        constexpr int64_t lanes = Vector<T, bytes>::lanes;
        V sums[COUNT][VECTORS];
#pragma GCC unroll 8
        for (int u = 0; u < COUNT; ++u)
#pragma GCC unroll 2
            for (int i = 0; i < VECTORS; ++i) sums[u][i] = V{};
        for (int64_t k = 0; k < n; ++k, v += pixel) {
            V entries[VECTORS];
#pragma GCC unroll 2
            for (int i = 0; i < VECTORS; ++i) entries[i] = *reinterpret_cast<const V *>(v + i * lanes);
#pragma GCC unroll 8
            for (int u = 0; u < COUNT; ++u) {
                const T weight = s[u * row + k];
#pragma GCC unroll 2
                for (int i = 0; i < VECTORS; ++i) sums[u][i] += weight * entries[i];
            }
        }
#pragma GCC unroll 8
        for (int u = 0; u < COUNT; ++u)
#pragma GCC unroll 2
            for (int i = 0; i < VECTORS; ++i)
                store.template put<bytes>(channel + i * lanes, y + u * y_pixel + i * lanes, sums[u][i]);
    }

    template <int COUNT, typename Store>
    __attribute__((noinline)) void weigh_head(const T *s, const T *v, int64_t pixel, T *y, int64_t y_pixel,
                                              int64_t channel, Store store) const {
        constexpr int64_t lanes = LANES<T>;
        int64_t i = 0;
        for (; i + 2 * lanes <= c; i += 2 * lanes)
            weigh<COUNT, WIDE, 2>(s, v + i, pixel, y + i, y_pixel, channel + i, store);
        for (; i + lanes <= c; i += lanes) weigh<COUNT, WIDE, 1>(s, v + i, pixel, y + i, y_pixel, channel + i, store);
        if (i < c) weigh<COUNT, NARROW, 1>(s, v + i, pixel, y + i, y_pixel, channel + i, store);
    }

    template <int COUNT = QUERIES, typename Store>
    void weigh_queries(int64_t count, const T *s, const T *v, int64_t pixel, T *y, int64_t y_pixel, int64_t channel,
                       Store store) const {
        if (count == COUNT)
            weigh_head<COUNT>(s, v, pixel, y, y_pixel, channel, store);
        else if constexpr (COUNT > 1)
            weigh_queries<COUNT - 1>(count, s, v, pixel, y, y_pixel, channel, store);
    }

    // A line; `store.put<bytes>(channel, target, vector)` is what becomes of results, channels counted over all heads.
    template <typename Store>
    void run(const Line &q, const Line &v, T *y, int64_t y_head, int64_t y_pixel, Store store) {
        const T *from = v.data;
        int64_t head = v.head, pixel = v.pixel;
        if (pixel != heads * c) {  // far from one another: they would be in each other's way in the cache
            head = c, pixel = heads * c;
            for (int64_t k = 0; k < n; ++k)
                for (int64_t h = 0; h < heads; ++h)
                    copy(v.data + k * v.pixel + h * v.head, c, values.data + k * pixel + h * c);
            from = values.data;
        }
        for (int64_t a = 0; a < n; a += together) {
            const int64_t count = std::min(together, n - a);
            for (int64_t first = 0; first < heads;) {
                const int64_t some = heads - first < HEADS ? 4 : HEADS;
                for (int64_t u = 0; u < count; ++u) {
                    const T *queries = q.data + (a + u) * q.pixel + first * q.head;
                    if (some == HEADS)
                        score_query<HEADS>(queries, q.head, r.seen_by(a + u), scores.data + u * row);
                    else
                        score_query<4>(queries, q.head, r.seen_by(a + u), scores.data + u * row);
                }
                for (int64_t h = first; h < first + some; ++h)
                    weigh_queries(count, scores.data + (h - first) * QUERIES * row, from + h * head, pixel,
                                  y + a * y_pixel + h * y_head, y_pixel, h * c, store);
                first += some;
            }
        }
    }
};

}  // namespace foveate
