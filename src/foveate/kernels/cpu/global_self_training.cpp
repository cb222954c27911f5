// All of GSA that follows the projection, in training, on a CPU, forward and backward.
//
//     hidden = column_pass(v)      y = q context + row_pass(norm(hidden))      context = ρ(kᵀ) v
//
// The normalization is that of the batch, or with given statistics; what it makes exists for a few lines at a time.
// Some images at a time, so that the second step finds in the caches what the first has read and written.

#include <numeric>

#include "axial.h"
#include "content_backward.h"

namespace foveate {
namespace {

// Strides of the columns of a map, from those of its rows.
struct Columns {
    int64_t stride[4];
    explicit Columns(const int64_t *rows) : stride{rows[0], rows[1], rows[3], rows[2]} {}
};

// Images that are done together: where it takes no more than four, whole groups of rows.
template <typename T> int64_t together(int64_t rows) {
    return std::min<int64_t>(4, LANES<T> / std::gcd(LANES<T>, rows));
}

template <typename T> void before(const ContentForward<T> &content, const AxialForward<T> &columns, int threads) {
    const int64_t images = columns.s.images, rows = columns.s.rows() / images;
    if (images < threads) {
        each_image(content, images, threads);
        columns.run_all(threads);
        return;
    }
    const int64_t some = columns.by_line ? 1 : std::min(together<T>(rows), images / threads);
#pragma omp parallel num_threads(threads)
    {
        typename ContentForward<T>::Local local(content);
        typename ContentForward<T>::Image made(content);
        typename AxialForward<T>::Local pass(columns);
#pragma omp for schedule(static)
        for (int64_t first = 0; first < images; first += some) {
            const int64_t end = std::min(first + some, images);
            for (int64_t image = first; image < end; ++image) content.compute(image, local, made);
            columns.run(first * rows, end * rows, pass);
        }
    }
}

// The row pass, added to the content.
template <typename T> void after(const AxialForward<T> &rows, const Affine<T> &norm, const T *hidden, int threads) {
    const Sizes &s = rows.s;
#pragma omp parallel num_threads(threads)
    {
        typename AxialForward<T>::Local pass(rows);
        NormalizedLines<T> lines(norm, hidden, s, rows.unit);
#pragma omp for schedule(static)
        for (int64_t first = 0; first < s.rows(); first += rows.unit) {
            const int64_t end = std::min(first + rows.unit, s.rows());
            rows.some(first, end, lines.read(first / s.heads, (end - 1) / s.heads + 1), pass);
        }
    }
}

// The gradients of what the normalization makes, in `rows.gv`, and of the queries, by the row pass.
template <typename T>
void after_backward(const AxialBackward<T> &rows, const Affine<T> &norm, const T *hidden, const T *mean, T *g_window,
                    GradientSums<T> &sums, int threads) {
    const Sizes &s = rows.s;
    rows.shared((s.rows() + LANES<T> - 1) / LANES<T>, g_window, threads,
                [&] { return NormalizedLines<T>(norm, hidden, s, LANES<T>); },
                [&](int64_t share, int64_t group, int64_t last, typename AxialBackward<T>::Local &pass,
                    NormalizedLines<T> &lines) {
                    for (; group < last; ++group) {
                        const int64_t first = group * LANES<T>, end = std::min(first + LANES<T>, s.rows());
                        rows.group(first, end, lines.read(first / s.heads, (end - 1) / s.heads + 1), pass);
                        const Rows<T> made(rows.gv, s, first, end);
                        for (int64_t row = first; row < end; ++row)
                            sums.add(share, row % s.heads * s.c, made.start[row - first], made.pixel,
                                     hidden + row / s.heads * lines.line, mean, s.n, s.c);
                    }
                });
}

// What a thread works with.
template <typename T> struct Backward {
    typename ContentBackward<T>::Local local;
    typename ContentBackward<T>::Image made;
    explicit Backward(const ContentBackward<T> &content) : local(content), made(content) {}
};

// `g`: the gradients of what the normalization makes, and then those of the column pass, in the same place.
template <typename T>
void before_backward(const ContentBackward<T> &content, const AxialBackward<T> &columns, const NormBackward<T> &norm,
                     const T *hidden, Lines<T> g, T *g_window, int threads) {
    const int64_t images = columns.s.images, rows = columns.s.rows() / images, pixels = content.s.lines * content.s.n;
    const auto turn = [&](int64_t image, int64_t first, int64_t count) {
        norm.run(hidden + (image * pixels + first) * norm.channels, g.at(image, 0, 0, first), g.stride[3], count);
    };
    if (images < SHARES) {
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
        for (int64_t image = 0; image < images; ++image)
            for (int64_t line = 0; line < content.s.lines; ++line) turn(image, line * content.s.n, content.s.n);
        columns.run_all(g_window, threads);
        each_image(content, images, threads);
        return;
    }
    const int64_t some = together<T>(rows);
    columns.shared(
        images, g_window, threads, [&] { return Backward<T>(content); },
        [&](int64_t, int64_t first, int64_t last, typename AxialBackward<T>::Local &pass, Backward<T> &work) {
            for (; first < last; first += some) {
                const int64_t end = std::min(first + some, last);
                for (int64_t image = first; image < end; ++image) turn(image, 0, pixels);
                columns.run(first * rows, end * rows, pass);
                for (int64_t image = first; image < end; ++image) content.compute(image, work.local, work.made);
            }
        });
}

}  // namespace
}  // namespace foveate

// `hidden` is (images, height, width, channels), as the strides of g_hidden are: a pixel as far from each to the next,
// its channels next to one another. `of_batch`: mean and variance are results. g_hidden is for work, and may be gk.
#define FOVEATE_TRAINING(T, name)                                                                                      \
    extern "C" void global_self_training_##name(                                                                       \
        const T *q, const int64_t *q_stride, const T *k, const int64_t *k_stride, const T *v, const int64_t *v_stride, \
        const T *down, const T *along, const T *weight, const T *bias, T *mean, T *variance, T *y,                     \
        const int64_t *y_stride, T *hidden, const int64_t *hidden_stride, T *context, T *peak, T *total,               \
        const int64_t *sizes, int threads, double epsilon, int of_batch) {                                             \
        using namespace foveate;                                                                                       \
        const Sizes s(sizes);                                                                                          \
        const int64_t channels = s.heads * s.c;                                                                        \
        const Columns of_q(q_stride), of_v(v_stride), of_hidden(hidden_stride);                                        \
        const ContentForward<T> content{Content<T>(s), {q, q_stride}, {k, k_stride}, {v, v_stride},                    \
                                        {y, y_stride}, context,       peak,          total};                           \
        before(                                                                                                        \
            content,                                                                                                   \
            AxialForward<T>({q, of_q.stride}, {v, of_v.stride}, down, {hidden, of_hidden.stride}, s.across(), false),  \
            threads);                                                                                                  \
        if (of_batch) statistics<T>(hidden, s.images * s.lines * s.n, channels, mean, variance, threads);              \
        after(AxialForward<T>({q, q_stride}, {hidden, hidden_stride}, along, {y, y_stride}, s, true),                  \
              Affine<T>(channels, mean, variance, weight, bias, epsilon), hidden, threads);                            \
    }                                                                                                                  \
    extern "C" void global_self_training_backward_##name(                                                              \
        const T *g, const int64_t *g_stride, const T *q, const int64_t *q_stride, const T *k, const int64_t *k_stride, \
        const T *v, const int64_t *v_stride, const T *down, const T *along, const T *weight, const T *bias,            \
        const T *mean, const T *variance, const T *hidden, const T *context, const T *peak, const T *total, T *gq,     \
        const int64_t *gq_stride, T *gk, const int64_t *gk_stride, T *gv, const int64_t *gv_stride, T *g_hidden,       \
        const int64_t *g_hidden_stride, T *g_down, T *g_along, T *g_weight, T *g_bias, const int64_t *sizes,           \
        int threads, double epsilon, int of_batch) {                                                                   \
        using namespace foveate;                                                                                       \
        const Sizes s(sizes);                                                                                          \
        const int64_t channels = s.heads * s.c;                                                                        \
        const Columns of_q(q_stride), of_v(v_stride), of_gq(gq_stride), of_gv(gv_stride), of_g(g_hidden_stride);       \
        const Lines<T> work{g_hidden, g_hidden_stride};                                                                \
        GradientSums<T> sums(channels);                                                                                \
        after_backward(AxialBackward<T>({g, g_stride}, {q, q_stride}, {hidden, g_hidden_stride}, along,                \
                                        {gq, gq_stride}, work, s, false),                                              \
                       Affine<T>(channels, mean, variance, weight, bias, epsilon), hidden, mean, g_along, sums,        \
                       threads);                                                                                       \
        const NormBackward<T> norm(sums, s.images * s.lines * s.n, of_batch, mean, variance, weight, epsilon,          \
                                   g_weight, g_bias);                                                                  \
        before_backward(ContentBackward<T>({g, g_stride}, {q, q_stride}, {k, k_stride}, {v, v_stride}, context, peak,  \
                                           total, {gq, gq_stride}, {gk, gk_stride}, {gv, gv_stride}, s, true),         \
                        AxialBackward<T>({g_hidden, of_g.stride}, {q, of_q.stride}, {v, of_v.stride}, down,            \
                                         {gq, of_gq.stride}, {gv, of_gv.stride}, s.across(), true),                    \
                        norm, hidden, work, g_down, threads);                                                          \
    }

FOVEATE_TRAINING(float, float32)
FOVEATE_TRAINING(double, float64)
