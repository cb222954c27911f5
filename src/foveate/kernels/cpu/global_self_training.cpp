// What comes before the normalisation of GSA in training, on a CPU: the content attention and the column pass.
//
// Some images at a time, so that the second finds in the caches what the first has read and written.

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

template <typename T> void forward(const ContentForward<T> &content, const AxialForward<T> &columns, int threads) {
    const int64_t images = columns.s.images, rows = columns.s.rows() / images;
    const int64_t fit = std::max<int64_t>(1, images / threads);  // to each thread
    const int64_t some = columns.by_line ? 1 : std::min(together<T>(rows), fit);
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

// What a thread works with.
template <typename T> struct Backward {
    typename ContentBackward<T>::Local local;
    typename ContentBackward<T>::Image made;
    explicit Backward(const ContentBackward<T> &content) : local(content), made(content) {}
};

template <typename T> void add(Pixels<const T> from, Pixels<T> to, const Sizes &s) {
    for (int64_t pixel = 0; pixel < s.lines * s.n; ++pixel)
        for (int64_t head = 0; head < s.heads; ++head) {
            const T *source = from.at(pixel) + head * from.head;
            T *target = to.at(pixel) + head * to.head;
            for (int64_t i = 0; i < s.d; ++i) target[i] += source[i];
        }
}

// `more`: the gradient of the queries by what comes after the normalisation, which is added.
template <typename T>
void backward(const ContentBackward<T> &content, const AxialBackward<T> &columns, Lines<const T> more, T *g_window,
              int threads) {
    const int64_t images = columns.s.images, rows = columns.s.rows() / images, some = together<T>(rows);
    columns.shared(
        images, g_window, threads, [&] { return Backward<T>(content); },
        [&](int64_t first, int64_t last, typename AxialBackward<T>::Local &pass, Backward<T> &work) {
            for (; first < last; first += some) {
                const int64_t end = std::min(first + some, last);
                for (int64_t image = first; image < end; ++image) {
                    content.compute(image, work.local, work.made);
                    add<T>({more, image, content.s}, {content.gq, image, content.s}, content.s);
                }
                columns.run(first * rows, end * rows, pass);
            }
        });
}

}  // namespace
}  // namespace foveate

#define FOVEATE_BEFORE_NORM(T, name)                                                                                   \
    extern "C" void before_norm_forward_##name(                                                                        \
        const T *q, const int64_t *q_stride, const T *k, const int64_t *k_stride, const T *v, const int64_t *v_stride, \
        const T *window, T *attended, const int64_t *attended_stride, T *hidden, const int64_t *hidden_stride,         \
        T *context, T *peak, T *total, const int64_t *sizes, int threads) {                                            \
        using namespace foveate;                                                                                       \
        const Sizes s(sizes);                                                                                          \
        const Columns of_q(q_stride), of_v(v_stride), of_hidden(hidden_stride);                                        \
        const ContentForward<T> content{                                                                               \
            Content<T>(s), {q, q_stride}, {k, k_stride}, {v, v_stride}, {attended, attended_stride},                   \
            context,       peak,          total};                                                                      \
        const AxialForward<T> columns({q, of_q.stride}, {v, of_v.stride}, window, {hidden, of_hidden.stride},          \
                                      s.across(), false);                                                              \
        forward(content, columns, threads);                                                                            \
    }                                                                                                                  \
    extern "C" void before_norm_backward_##name(                                                                       \
        const T *g_content, const int64_t *g_content_stride, const T *g_hidden, const int64_t *g_hidden_stride,        \
        const T *g_query, const int64_t *g_query_stride, const T *q, const int64_t *q_stride, const T *k,              \
        const int64_t *k_stride, const T *v, const int64_t *v_stride, const T *window, const T *context,               \
        const T *peak, const T *total, T *gq, const int64_t *gq_stride, T *gk, const int64_t *gk_stride, T *gv,        \
        const int64_t *gv_stride, T *g_window, const int64_t *sizes, int threads) {                                    \
        using namespace foveate;                                                                                       \
        const Sizes s(sizes);                                                                                          \
        const Columns of_g(g_hidden_stride), of_q(q_stride), of_v(v_stride), of_gq(gq_stride), of_gv(gv_stride);       \
        const ContentBackward<T> content({g_content, g_content_stride}, {q, q_stride}, {k, k_stride}, {v, v_stride},   \
                                         context, peak, total, {gq, gq_stride}, {gk, gk_stride}, {gv, gv_stride}, s);  \
        const AxialBackward<T> columns({g_hidden, of_g.stride}, {q, of_q.stride}, {v, of_v.stride}, window,            \
                                       {gq, of_gq.stride}, {gv, of_gv.stride}, s.across(), true);                      \
        backward(content, columns, Lines<const T>{g_query, g_query_stride}, g_window, threads);                        \
    }

FOVEATE_BEFORE_NORM(float, float32)
FOVEATE_BEFORE_NORM(double, float64)
