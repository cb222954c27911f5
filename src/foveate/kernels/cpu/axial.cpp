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

#include "lines.h"

namespace foveate {
namespace {

constexpr int64_t TILE = 8;  // queries at a time

// The embeddings twice: channels next to one another, and offsets next to one another.
template <typename T> struct Embeddings {
    int64_t width, span;
    Buffer<T> rows, columns;
    Embeddings(const T *window, const Sizes &s)
        : width(padded<T>(s.d)), span(padded<T>(2 * s.n - 1) + padded<T>(TILE)), rows((2 * s.n - 1) * width),
          columns(s.d * span) {
        for (int64_t i = 0; i < 2 * s.n - 1; ++i) std::copy_n(window + i * s.d, s.d, rows.data + i * width);
        transpose(window, 2 * s.n - 1, s.d, s.d, columns.data, span);
    }
};

template <typename T> struct Tile {
    int64_t first, count;    // queries
    int64_t offset, columns; // the stretch of r that they meet
    int64_t width;           // of a row of the tile's scores
    Tile(int64_t first, const Sizes &s)
        : first(first), count(std::min(TILE, s.n - first)), offset(s.n - first - count), columns(s.n + count - 1),
          width(row(s)) {}
    static int64_t row(const Sizes &s) { return padded<T>(s.n + TILE) + padded<T>(TILE); }
    template <typename U> Matrix<U> skewed(U *scores) const { return {scores, width}; }
    template <typename U> Matrix<U> straight(U *scores) const { return {scores + count - 1, width - 1}; }
};

template <typename T>
void score(const Tile<T> &tile, const Sizes &s, const T *q, const Embeddings<T> &r, T *scores) {
    product<T>(tile.count, padded<T>(tile.columns), s.d, {q + tile.first * r.width, r.width},
               {r.columns.data + tile.offset, r.span}, tile.skewed(scores), false);
}

template <typename T>
void axial_forward(Lines<const T> q, Lines<const T> v, const T *window, Lines<T> y, const Sizes s, int threads) {
    const Embeddings<T> r(window, s);
    const int64_t values = padded<T>(s.c);
#pragma omp parallel num_threads(threads)
    {
        Buffer<T> q_line(s.heads * s.n * r.width), v_line(s.heads * s.n * values), y_line(s.heads * s.n * values);
        Buffer<T> scores(TILE * Tile<T>::row(s));
        const T *straight = scores.data;
#pragma omp for schedule(static)
        for (int64_t line = 0; line < s.images * s.lines; ++line) {
            gather(q, s, line, s.d, r.width, q_line.data);
            gather(v, s, line, s.c, values, v_line.data);
            for (int64_t head = 0; head < s.heads; ++head)
                for (int64_t first = 0; first < s.n; first += TILE) {
                    const Tile<T> tile(first, s);
                    score(tile, s, q_line.data + head * s.n * r.width, r, scores.data);
                    product<T>(tile.count, values, s.n, tile.straight(straight),
                               {v_line.data + head * s.n * values, values},
                               {y_line.data + (head * s.n + first) * values, values}, false);
                }
            scatter(y_line.data, values, y, s, line, s.c);
        }
    }
}

template <typename T>
void axial_backward(Lines<const T> g, Lines<const T> q, Lines<const T> v, const T *window, Lines<T> gq, Lines<T> gv,
                    T *g_window, const Sizes s, int threads) {
    const Embeddings<T> r(window, s);
    const int64_t values = padded<T>(s.c), keys = padded<T>(s.n), lines = s.images * s.lines;
    const int64_t table = (2 * s.n - 1) * r.width, groups = std::min<int64_t>(lines, 64);
    Buffer<T> partial(groups * table);
#pragma omp parallel num_threads(threads)
    {
        const int64_t line_q = s.heads * s.n * r.width, line_v = s.heads * s.n * values;
        Buffer<T> q_line(line_q), gq_line(line_q), v_line(line_v), g_line(line_v), gv_line(line_v);
        Buffer<T> scores(TILE * Tile<T>::row(s)), g_scores(TILE * Tile<T>::row(s)), v_turned(s.c * keys);
#pragma omp for schedule(static)
        for (int64_t group = 0; group < groups; ++group)
            for (int64_t line = lines * group / groups; line < lines * (group + 1) / groups; ++line) {
                gather(q, s, line, s.d, r.width, q_line.data);
                gather(v, s, line, s.c, values, v_line.data);
                gather(g, s, line, s.c, values, g_line.data);
                for (int64_t head = 0; head < s.heads; ++head) {
                    const T *qh = q_line.data + head * s.n * r.width, *gh = g_line.data + head * s.n * values;
                    T *gqh = gq_line.data + head * s.n * r.width, *gvh = gv_line.data + head * s.n * values;
                    transpose(v_line.data + head * s.n * values, s.n, s.c, values, v_turned.data, keys);
                    for (int64_t first = 0; first < s.n; first += TILE) {
                        const Tile<T> tile(first, s);
                        const Matrix<const T> q_tile{qh + first * r.width, r.width}, g_tile{gh + first * values, values};
                        score(tile, s, qh, r, scores.data);
                        const T *tile_scores = scores.data, *tile_g_scores = g_scores.data;
                        product<T>(s.n, values, tile.count, tile.straight(tile_scores).turned(), g_tile, {gvh, values},
                                   first > 0);
                        // Beside the diagonals there are zeros; a shorter tile has its diagonals elsewhere.
                        if (tile.count < TILE) g_scores.clear();
                        product<T>(tile.count, keys, s.c, g_tile, {v_turned.data, keys}, tile.straight(g_scores.data),
                                   false);
                        product<T>(tile.count, r.width, tile.columns, tile.skewed(tile_g_scores),
                                   {r.rows.data + tile.offset * r.width, r.width}, {gqh + first * r.width, r.width},
                                   false);
                        product<T>(tile.columns, r.width, tile.count, tile.skewed(tile_g_scores).turned(), q_tile,
                                   {partial.data + group * table + tile.offset * r.width, r.width}, true);
                        if (tile.count < TILE) g_scores.clear();
                    }
                }
                scatter(gq_line.data, r.width, gq, s, line, s.d);
                scatter(gv_line.data, values, gv, s, line, s.c);
            }
    }
    std::fill_n(g_window, (2 * s.n - 1) * s.d, T(0));
    for (int64_t group = 0; group < groups; ++group)
        for (int64_t i = 0; i < 2 * s.n - 1; ++i)
            for (int64_t j = 0; j < s.d; ++j) g_window[i * s.d + j] += partial.data[group * table + i * r.width + j];
}

}  // namespace
}  // namespace foveate

#define FOVEATE_AXIAL(T, name)                                                                                         \
    extern "C" void axial_forward_##name(const T *q, const int64_t *q_stride, const T *v, const int64_t *v_stride,     \
                                         const T *window, T *y, const int64_t *y_stride, const int64_t *sizes,         \
                                         int threads) {                                                                \
        foveate::axial_forward<T>({q, q_stride}, {v, v_stride}, window, {y, y_stride}, foveate::Sizes(sizes),          \
                                  threads);                                                                            \
    }                                                                                                                  \
    extern "C" void axial_backward_##name(                                                                             \
        const T *g, const int64_t *g_stride, const T *q, const int64_t *q_stride, const T *v, const int64_t *v_stride, \
        const T *window, T *gq, const int64_t *gq_stride, T *gv, const int64_t *gv_stride, T *g_window,                \
        const int64_t *sizes, int threads) {                                                                           \
        foveate::axial_backward<T>({g, g_stride}, {q, q_stride}, {v, v_stride}, window, {gq, gq_stride},               \
                                   {gv, gv_stride}, g_window, foveate::Sizes(sizes), threads);                         \
    }

FOVEATE_AXIAL(float, float32)
FOVEATE_AXIAL(double, float64)
