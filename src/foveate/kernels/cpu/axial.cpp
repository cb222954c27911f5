// The axial positional pass of GSA on a CPU, forward and backward.
//
// With q, v the queries and values of one line of n pixels and one head, and r[0 … 2n−2] the embeddings of the
// offsets −(n−1) … n−1:
//
//     s[a][k] = q[a] · r[k − a + n − 1]          y[a] = Σ_k s[a][k] v[k]
//
// Sums for the embeddings are kept for each share of the rows and added in the order of the shares: results are the
// same in every run and with any number of threads.

#include <algorithm>

#include "channels.h"
#include "lanes_backward.h"

namespace foveate {
namespace {

template <typename T>
void axial_forward(Lines<const T> q, Lines<const T> v, const T *window, Lines<T> y, const Sizes s, bool add,
                   int threads) {
    const Offsets<T> r(window, s.n, s.d);
    if (ChannelPass<T>::suits(s)) {
        using Line = typename ChannelPass<T>::Line;
#pragma omp parallel num_threads(threads)
        {
            ChannelPass<T> pass(r, s);
#pragma omp for schedule(static)
            for (int64_t line = 0; line < s.images * s.lines; ++line) {
                const int64_t image = line / s.lines, of = line % s.lines;
                T *to = y.at(image, 0, of, 0);
                if (add)
                    pass.run(Line(q, image, of), Line(v, image, of), to, y.stride[1], y.stride[3], AddVector<T>());
                else
                    pass.run(Line(q, image, of), Line(v, image, of), to, y.stride[1], y.stride[3], SetVector<T>());
            }
        }
        return;
    }
#pragma omp parallel num_threads(threads)
    {
        LanePass<T> pass(r, s.c);
#pragma omp for schedule(static)
        for (int64_t first = 0; first < s.images * s.lines * s.heads; first += LANES<T>) {
            pass.read({q, s, first}, {v, s, first});
            pass.run();
            if (add)
                pass.write({y, s, first}, Add<T>());
            else
                pass.write({y, s, first}, Set<T>());
        }
    }
}

template <typename T>
void axial_backward(Lines<const T> g, Lines<const T> q, Lines<const T> v, const T *window, Lines<T> gq, Lines<T> gv,
                    T *g_window, const Sizes s, bool add, int threads) {
    const Offsets<T> r(window, s.n, s.d);
    const int64_t groups = (s.images * s.lines * s.heads + LANES<T> - 1) / LANES<T>;
    const int64_t shares = std::min<int64_t>(groups, 32), table = r.span * s.d;
    Buffer<T> partial(shares * table, false);
#pragma omp parallel num_threads(threads)
    {
        LaneBackward<T> pass(r, window, s.c);
#pragma omp for schedule(static)
        for (int64_t share = 0; share < shares; ++share) {
            pass.g_offsets.clear();
            for (int64_t group = groups * share / shares; group < groups * (share + 1) / shares; ++group) {
                const int64_t first = group * LANES<T>;
                pass.read({q, s, first}, {v, s, first}, {g, s, first});
                pass.run();
                if (add)
                    pass.write({gq, s, first}, {gv, s, first}, Add<T>());
                else
                    pass.write({gq, s, first}, {gv, s, first}, Set<T>());
            }
            pass.collect(partial.data + share * table);
        }
    }
    std::copy_n(partial.data, table, g_window);
    for (int64_t share = 1; share < shares; ++share)
        for (int64_t i = 0; i < table; ++i) g_window[i] += partial.data[share * table + i];
}

}  // namespace
}  // namespace foveate

// With `add`, results are added to what y, or gq and gv, hold.
#define FOVEATE_AXIAL(T, name)                                                                                      \
    extern "C" void axial_forward_##name(const T *q, const int64_t *q_stride, const T *v, const int64_t *v_stride,  \
                                         const T *window, T *y, const int64_t *y_stride, const int64_t *sizes,      \
                                         int threads, int add) {                                                    \
        foveate::axial_forward<T>({q, q_stride}, {v, v_stride}, window, {y, y_stride}, foveate::Sizes(sizes), add,  \
                                  threads);                                                                         \
    }                                                                                                               \
    extern "C" void axial_backward_##name(const T *g, const int64_t *g_stride, const T *q, const int64_t *q_stride, \
                                          const T *v, const int64_t *v_stride, const T *window, T *gq,              \
                                          const int64_t *gq_stride, T *gv, const int64_t *gv_stride, T *g_window,   \
                                          const int64_t *sizes, int threads, int add) {                             \
        foveate::axial_backward<T>({g, g_stride}, {q, q_stride}, {v, v_stride}, window, {gq, gq_stride},            \
                                   {gv, gv_stride}, g_window, foveate::Sizes(sizes), add, threads);                 \
    }

FOVEATE_AXIAL(float, float32)
FOVEATE_AXIAL(double, float64)
