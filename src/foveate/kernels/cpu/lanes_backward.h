// The gradients of an axial pass, with rows side by side as in lanes.h. With g the gradient of y:
//
//     gs[a][k] = g[a] · v[k]        gq[a] = Σ_k gs[a][k] r[k − a]      gr[δ] = Σ_rows Σ_a gs[a][a + δ] q[a]
//                                   gv[k] = Σ_a s[a][k] g[a]
#pragma once

#include "lanes.h"

namespace foveate {

template <typename T> struct LaneBackward : LanePass<T> {
    using V = Wide<T>;
    using Pass = LanePass<T>;
    using Pass::c, Pass::d, Pass::n, Pass::QUERIES, Pass::row, Pass::STRIPE, Pass::wide;
    static constexpr int KEYS = QUERIES;     // at a time
    static constexpr int MARGIN = KEYS - 1;  // zeros beside the scores' gradients: what is off a diagonal
    static constexpr int PART = 16;          // queries whose scores exist at a time

    const T *window;               // the embeddings, [offset][channel]
    const int64_t stripes, g_row;  // `g_row`: of the scores' gradients
    // [pixel][channel], but for values and embeddings [stripe][pixel or offset][channel of the stripe].
    Buffer<T> grads, weights, g_scores, g_query, g_value, g_offsets;

    LaneBackward(const Offsets<T> &r, const T *window, int64_t c)
        : Pass(r, c),
          window(window),
          stripes((r.d + STRIPE - 1) / STRIPE),
          g_row(r.n + 2 * MARGIN),
          grads(r.n * wide * LANES<T>),
          weights((QUERIES + std::min<int64_t>(PART, r.n) * Pass::row) * LANES<T>, false),
          g_scores(std::min<int64_t>(PART, r.n) * g_row * LANES<T>),
          g_query(r.n * r.d * LANES<T>, false),
          g_value(r.n * wide * LANES<T>, false),
          g_offsets(stripes * STRIPE * r.span * LANES<T>, false) {}

    void read(const Rows<const T> &q, const Rows<const T> &v, const Rows<const T> &g) {
        Pass::read(q, v);
        for (int64_t a = 0; a < n; ++a)
            interleave<T>(g, a, c, [&](int64_t i) { return grads.data + (a * wide + i) * LANES<T>; });
        if (g.count < LANES<T>) blank(g.count);
        g_value.clear();
    }

    // The lanes beyond the last row repeat it; without a gradient they add nothing to that of the embeddings.
    void blank(int64_t count) {
        for (int64_t entry = 0; entry < n * wide; ++entry)
            std::fill(grads.data + entry * LANES<T> + count, grads.data + (entry + 1) * LANES<T>, T(0));
    }

    // `store` is what becomes of the gradients of queries; those of values are written.
    template <typename Store> void write(const Rows<T> &gq, const Rows<T> &gv, Store store) {
        for (int64_t k = 0; k < n; ++k) {
            separate<T>(g_query.data + k * d * LANES<T>, gq, k, d, store);
            for (int64_t i = 0; i < c; i += STRIPE)  // a pixel's stripes next to one another again
                std::copy_n(g_value.data + (i * n + k * STRIPE) * LANES<T>, STRIPE * LANES<T>,
                            Pass::out.data + i * LANES<T>);
            separate<T>(Pass::out.data, gv, k, c, Set<T>());
        }
    }

    // Bring what the rows so far add to the embeddings' gradient to gr, (2n − 1, d).
    void collect(T *gr) const {
        for (int64_t offset = 0; offset < this->r.span; ++offset)
            for (int64_t j = 0; j < d; ++j) {
                const T *lanes =
                    g_offsets.data + (((j / STRIPE) * this->r.span + offset) * STRIPE + j % STRIPE) * LANES<T>;
                T sum = 0;
                for (int64_t lane = 0; lane < LANES<T>; ++lane) sum += lanes[lane];
                gr[offset * d + j] = sum;
            }
    }

    // gs[u][k] for COUNT queries and KEYS keys.
    template <int COUNT, int KEYS> __attribute__((always_inline)) inline void dot(const V *g, const V *v, V *gs) const {
        V sums[COUNT][KEYS];
#pragma GCC unroll 4
        for (int u = 0; u < COUNT; ++u)
#pragma GCC unroll 4
            for (int k = 0; k < KEYS; ++k) sums[u][k] = V{};
        for (int64_t i = 0; i < wide; i += STRIPE, g += STRIPE, v += n * STRIPE)
#pragma GCC unroll 4
            for (int w = 0; w < STRIPE; ++w) {
                V keys[KEYS];
#pragma GCC unroll 4
                for (int k = 0; k < KEYS; ++k) keys[k] = v[k * STRIPE + w];
#pragma GCC unroll 4
                for (int u = 0; u < COUNT; ++u) {
                    const V grad = g[u * wide + w];
#pragma GCC unroll 4
                    for (int k = 0; k < KEYS; ++k) sums[u][k] += grad * keys[k];
                }
            }
#pragma GCC unroll 4
        for (int u = 0; u < COUNT; ++u)
#pragma GCC unroll 4
            for (int k = 0; k < KEYS; ++k) gs[u * g_row + k] = sums[u][k];
    }

    template <int COUNT> __attribute__((noinline)) void dots(const V *g, V *gs) const {
        const V *v = reinterpret_cast<const V *>(Pass::values.data);
        int64_t k = 0;
        for (; k + 4 <= n; k += 4) dot<COUNT, 4>(g, v + k * STRIPE, gs + k);
        for (; k < n; ++k) dot<COUNT, 1>(g, v + k * STRIPE, gs + k);
    }

    // to[k][i] += Σ_u w[u][k] x[u][i] for KEYS keys and a stripe of channels.
    template <int KEYS>
    __attribute__((always_inline)) static inline void add(int64_t count, const V *w, int64_t w_row, const V *x,
                                                          int64_t x_row, V *to) {
        V sums[KEYS][STRIPE];
#pragma GCC unroll 4
        for (int k = 0; k < KEYS; ++k)
#pragma GCC unroll 4
            for (int i = 0; i < STRIPE; ++i) sums[k][i] = to[k * STRIPE + i];
        for (int64_t u = 0; u < count; ++u, w += w_row, x += x_row) {
            V stripe[STRIPE];
#pragma GCC unroll 4
            for (int i = 0; i < STRIPE; ++i) stripe[i] = x[i];
#pragma GCC unroll 4
            for (int k = 0; k < KEYS; ++k) {
                const V weight = w[k];
#pragma GCC unroll 4
                for (int i = 0; i < STRIPE; ++i) sums[k][i] += weight * stripe[i];
            }
        }
#pragma GCC unroll 4
        for (int k = 0; k < KEYS; ++k)
#pragma GCC unroll 4
            for (int i = 0; i < STRIPE; ++i) to[k * STRIPE + i] = sums[k][i];
    }

    __attribute__((noinline)) void add_values(int64_t count, const V *s, const V *g, V *gv) const {
        int64_t k = 0;
        for (; k + KEYS <= n; k += KEYS) add<KEYS>(count, s + k, row, g, wide, gv + k * STRIPE);
        for (; k < n; ++k) add<1>(count, s + k, row, g, wide, gv + k * STRIPE);
    }

    // The keys at one offset stand on a diagonal of gs, which is followed where it has any.
    template <int OFFSETS>
    __attribute__((always_inline)) inline void add_diagonals(int64_t o, int64_t first, int64_t end, const V *gs,
                                                             const V *q, V *gr) const {
        const int64_t from = std::max(first, n - o - OFFSETS), to = std::min(end, 2 * n - 1 - o);
        add<OFFSETS>(to - from, gs + (from - first) * g_row + o - (n - 1) + from, g_row + 1, q + (from - first) * d, d,
                     gr + o * STRIPE);
    }

    __attribute__((noinline)) void add_offsets(int64_t first, int64_t end, const V *gs, const V *q, V *gr) const {
        int64_t o = n - end;
        for (; o + KEYS <= 2 * n - 1 - first; o += KEYS) add_diagonals<KEYS>(o, first, end, gs, q, gr);
        for (; o < 2 * n - 1 - first; ++o) add_diagonals<1>(o, first, end, gs, q, gr);
    }

    // gq[u][j] = Σ_k gs[u][k] r[k − u][j] for COUNT queries that follow one another and SIZE channels, `offsets`
    // diagonals.
    template <int COUNT, int SIZE>
    __attribute__((always_inline)) inline void turn(int64_t offsets, const V *gs, const T *r, V *gq) const {
        V sums[COUNT][SIZE];
#pragma GCC unroll 4
        for (int u = 0; u < COUNT; ++u)
#pragma GCC unroll 4
            for (int j = 0; j < SIZE; ++j) sums[u][j] = V{};
        for (int64_t o = 0; o < offsets; ++o, ++gs, r += d) {
            V grads[COUNT];
#pragma GCC unroll 4
            for (int u = 0; u < COUNT; ++u) grads[u] = gs[u * (g_row + 1)];
#pragma GCC unroll 4
            for (int j = 0; j < SIZE; ++j) {
                const V embedding = r[j] - V{};
#pragma GCC unroll 4
                for (int u = 0; u < COUNT; ++u) sums[u][j] += grads[u] * embedding;
            }
        }
#pragma GCC unroll 4
        for (int u = 0; u < COUNT; ++u)
#pragma GCC unroll 4
            for (int j = 0; j < SIZE; ++j) gq[u * d + j] = sums[u][j];
    }

    // Of queries a, a + 1, …: what is off the line of one of them has no gradient there.
    template <int COUNT> __attribute__((noinline)) void turn_queries(int64_t a, const V *gs) {
        V *gq = reinterpret_cast<V *>(g_query.data) + a * d;
        const T *embeddings = window + (n - a - COUNT) * d;
        gs -= COUNT - 1;
        int64_t j = 0;
        for (; j + 4 <= d; j += 4) turn<COUNT, 4>(n + COUNT - 1, gs, embeddings + j, gq + j);
        for (; j < d; ++j) turn<COUNT, 1>(n + COUNT - 1, gs, embeddings + j, gq + j);
    }

    // What queries first … end − 1 add.
    void part(int64_t first, int64_t end) {
        V *s = reinterpret_cast<V *>(weights.data) + QUERIES, *gs = reinterpret_cast<V *>(g_scores.data) + MARGIN;
        const V *g = reinterpret_cast<const V *>(grads.data) + first * wide;
        const V *q = reinterpret_cast<const V *>(Pass::queries.data) + first * d;
        V *gv = reinterpret_cast<V *>(g_value.data), *gr = reinterpret_cast<V *>(g_offsets.data);
        const int64_t count = end - first;
        int64_t u = 0;
        for (; u + QUERIES <= count; u += QUERIES) dots<QUERIES>(g + u * wide, gs + u * g_row);
        for (; u < count; ++u) dots<1>(g + u * wide, gs + u * g_row);
        for (u = 0; u + QUERIES <= count; u += QUERIES) {
            Pass::template score_queries<QUERIES>(first + u, s + u * row);
            turn_queries<QUERIES>(first + u, gs + u * g_row);
        }
        for (; u < count; ++u) {
            Pass::template score_queries<1>(first + u, s + u * row);
            turn_queries<1>(first + u, gs + u * g_row);
        }
        for (int64_t i = 0; i < wide; i += STRIPE) add_values(count, s, g + i, gv + i * n);
        for (int64_t j = 0; j < stripes; ++j)
            add_offsets(first, end, gs, q + j * STRIPE, gr + j * this->r.span * STRIPE);
    }

    void run() {
        for (int64_t a = 0; a < n; a += PART) part(a, std::min(n, a + PART));
    }
};

}  // namespace foveate
