// The axial positional pass of GSA on a CPU, forward and backward.
//
// With q, v the queries and values of one line of n pixels and one head, and r[0 … 2n−2] the embeddings of the
// offsets −(n−1) … n−1:
//
//     s[a][k] = q[a] · r[k − a + n − 1]          y[a] = Σ_k s[a][k] v[k]
//
// A tile of queries is taken at a time, and its scores never leave the innermost cache. The product of a tile's
// queries with a stretch of r holds every score on a diagonal: s[a][k] in column k − a + (last query of the tile).
// Reading it with a row stride one short of its width straightens it, so nothing is moved.
//
// Sums for the embeddings are kept for each group of lines and added in the order of the groups: results are the
// same in every run and with any number of threads.

#include <algorithm>

#include "lanes.h"

namespace foveate {
namespace {

constexpr int64_t TILE = 8;  // queries at a time

// The embeddings twice: channels next to one another, and offsets next to one another.
template <typename T> struct Embeddings {
    int64_t width, span;
    Buffer<T> rows, columns;
    Embeddings(const T *window, const Sizes &s)
        : width(padded<T>(s.d)),
          span(padded<T>(2 * s.n - 1) + padded<T>(TILE)),
          rows((2 * s.n - 1) * width),
          columns(s.d * span) {
        for (int64_t i = 0; i < 2 * s.n - 1; ++i) std::copy_n(window + i * s.d, s.d, rows.data + i * width);
        transpose<T>(2 * s.n - 1, s.d, {window, s.d}, {columns.data, span});
    }
};

template <typename T> struct Tile {
    int64_t first, count;     // queries
    int64_t offset, columns;  // the stretch of r that they meet
    int64_t width;            // of a row of the tile's scores
    Tile(int64_t first, const Sizes &s)
        : first(first),
          count(std::min(TILE, s.n - first)),
          offset(s.n - first - count),
          columns(s.n + count - 1),
          width(row(s)) {}
    static int64_t row(const Sizes &s) { return padded<T>(s.n + TILE) + padded<T>(TILE); }
    template <typename U> Matrix<U> skewed(U *scores) const { return {scores, width}; }
    template <typename U> Matrix<U> straight(U *scores) const { return {scores + count - 1, width - 1}; }
};

template <typename T>
void score(const Tile<T> &tile, const Sizes &s, Matrix<const T> q, const Embeddings<T> &r, T *scores) {
    product<T>(tile.count, padded<T>(tile.columns), s.d, q.from(tile.first), {r.columns.data + tile.offset, r.span},
               tile.skewed(scores), false);
}

template <typename T>
void axial_forward(Lines<const T> q, Lines<const T> v, const T *window, Lines<T> y, const Sizes s, int threads) {
    const Offsets<T> r(window, s.n, s.d);
#pragma omp parallel num_threads(threads)
    {
        LanePass<T> pass(r, s.c);
#pragma omp for schedule(static)
        for (int64_t first = 0; first < s.images * s.lines * s.heads; first += LANES<T>) {
            pass.read({q, s, first}, {v, s, first});
            pass.run();
            pass.write({y, s, first}, Set<T>());
        }
    }
}

template <typename T>
void axial_backward(Lines<const T> g, Lines<const T> q, Lines<const T> v, const T *window, Lines<T> gq, Lines<T> gv,
                    T *g_window, const Sizes s, int threads) {
    const Embeddings<T> r(window, s);
    const Matrix<const T> embeddings{r.rows.data, r.width};
    const int64_t c = padded<T>(s.c), n = padded<T>(s.n);
    const Local q_local{s.n * r.width, r.width}, v_local{s.n * c, c};
    const int64_t lines = s.images * s.lines, groups = std::min<int64_t>(lines, 64), table = (2 * s.n - 1) * r.width;
    Buffer<T> partial(groups * table);
#pragma omp parallel num_threads(threads)
    {
        Buffer<T> q_line(s.heads * q_local.head), gq_line(s.heads * q_local.head), v_line(s.heads * v_local.head);
        Buffer<T> g_line(s.heads * v_local.head), gv_line(s.heads * v_local.head), v_turned(s.c * n);
        Buffer<T> scores(TILE * Tile<T>::row(s)), g_scores(TILE * Tile<T>::row(s));
#pragma omp for schedule(static)
        for (int64_t group = 0; group < groups; ++group)
            for (int64_t line = lines * group / groups; line < lines * (group + 1) / groups; ++line) {
                gather(q, s, line, 1, s.d, q_local, q_line.data);
                gather(v, s, line, 1, s.c, v_local, v_line.data);
                gather(g, s, line, 1, s.c, v_local, g_line.data);
                const Matrix<T> gr{partial.data + group * table, r.width};
                for (int64_t head = 0; head < s.heads; ++head) {
                    const Matrix<const T> qh{q_line.data + head * q_local.head, r.width};
                    const Matrix<const T> gh{g_line.data + head * v_local.head, c};
                    const Matrix<T> gqh{gq_line.data + head * q_local.head, r.width};
                    const Matrix<T> gvh{gv_line.data + head * v_local.head, c};
                    transpose<T>(s.n, s.c, {v_line.data + head * v_local.head, c}, {v_turned.data, n});
                    for (int64_t first = 0; first < s.n; first += TILE) {
                        const Tile<T> tile(first, s);
                        const auto g_skewed = tile.template skewed<const T>(g_scores.data);
                        score(tile, s, qh, r, scores.data);
                        product<T>(s.n, c, tile.count, tile.template straight<const T>(scores.data).turned(),
                                   gh.from(first), gvh, first > 0);
                        // Beside the diagonals there are zeros; a shorter tile has its diagonals elsewhere.
                        if (tile.count < TILE) g_scores.clear();
                        product<T>(tile.count, n, s.c, gh.from(first), {v_turned.data, n}, tile.straight(g_scores.data),
                                   false);
                        product<T>(tile.count, r.width, tile.columns, g_skewed, embeddings.from(tile.offset),
                                   gqh.from(first), false);
                        product<T>(tile.columns, r.width, tile.count, g_skewed.turned(), qh.from(first),
                                   gr.from(tile.offset), true);
                        if (tile.count < TILE) g_scores.clear();
                    }
                }
                scatter(gq_line.data, q_local, gq, s, line, 1, s.d);
                scatter(gv_line.data, v_local, gv, s, line, 1, s.c);
            }
    }
    std::fill_n(g_window, (2 * s.n - 1) * s.d, T(0));
    for (int64_t group = 0; group < groups; ++group)
        for (int64_t i = 0; i < 2 * s.n - 1; ++i)
            for (int64_t j = 0; j < s.d; ++j) g_window[i * s.d + j] += partial.data[group * table + i * r.width + j];
}

}  // namespace
}  // namespace foveate

#define FOVEATE_AXIAL(T, name)                                                                                      \
    extern "C" void axial_forward_##name(const T *q, const int64_t *q_stride, const T *v, const int64_t *v_stride,  \
                                         const T *window, T *y, const int64_t *y_stride, const int64_t *sizes,      \
                                         int threads) {                                                             \
        foveate::axial_forward<T>({q, q_stride}, {v, v_stride}, window, {y, y_stride}, foveate::Sizes(sizes),       \
                                  threads);                                                                         \
    }                                                                                                               \
    extern "C" void axial_backward_##name(const T *g, const int64_t *g_stride, const T *q, const int64_t *q_stride, \
                                          const T *v, const int64_t *v_stride, const T *window, T *gq,              \
                                          const int64_t *gq_stride, T *gv, const int64_t *gv_stride, T *g_window,   \
                                          const int64_t *sizes, int threads) {                                      \
        foveate::axial_backward<T>({g, g_stride}, {q, q_stride}, {v, v_stride}, window, {gq, gq_stride},            \
                                   {gv, gv_stride}, g_window, foveate::Sizes(sizes), threads);                      \
    }

FOVEATE_AXIAL(float, float32)
FOVEATE_AXIAL(double, float64)
