// The axial positional pass of GSA on a CPU, forward and backward.
//
// With q, v the queries and values of one line of n pixels and one head, and r[0 … 2n−2] the embeddings of the
// offsets −(n−1) … n−1:
//
//     s[a][k] = q[a] · r[k − a + n − 1]          y[a] = Σ_k s[a][k] v[k]
//
// Sums for the embeddings are kept for each share of the rows and added in the order of the shares: results are the
// same in every run and with any number of threads.

#include "axial.h"

namespace foveate {
namespace {

template <typename T> void axial_forward(const AxialForward<T> &pass, int threads) {
#pragma omp parallel num_threads(threads)
    {
        typename AxialForward<T>::Local local(pass);
#pragma omp for schedule(static)
        for (int64_t first = 0; first < pass.s.rows(); first += pass.unit)
            pass.run(first, std::min(first + pass.unit, pass.s.rows()), local);
    }
}

template <typename T> void axial_backward(const AxialBackward<T> &pass, T *g_window, int threads) {
    const int64_t rows = pass.s.rows();
    using Local = typename AxialBackward<T>::Local;
    pass.shared((rows + LANES<T> - 1) / LANES<T>, g_window, threads, [] { return 0; },
                [&](int64_t first, int64_t end, Local &local, int) {
                    pass.run(first * LANES<T>, std::min(end * LANES<T>, rows), local);
                });
}

}  // namespace
}  // namespace foveate

// With `add`, results are added to what y, or gq and gv, hold.
#define FOVEATE_AXIAL(T, name)                                                                                        \
    extern "C" void axial_forward_##name(const T *q, const int64_t *q_stride, const T *v, const int64_t *v_stride,    \
                                         const T *window, T *y, const int64_t *y_stride, const int64_t *sizes,        \
                                         int threads, int add) {                                                      \
        const foveate::Sizes s(sizes);                                                                                \
        foveate::axial_forward(foveate::AxialForward<T>({q, q_stride}, {v, v_stride}, window, {y, y_stride}, s, add), \
                               threads);                                                                              \
    }                                                                                                                 \
    extern "C" void axial_backward_##name(const T *g, const int64_t *g_stride, const T *q, const int64_t *q_stride,   \
                                          const T *v, const int64_t *v_stride, const T *window, T *gq,                \
                                          const int64_t *gq_stride, T *gv, const int64_t *gv_stride, T *g_window,     \
                                          const int64_t *sizes, int threads, int add) {                               \
        const foveate::Sizes s(sizes);                                                                                \
        foveate::axial_backward(foveate::AxialBackward<T>({g, g_stride}, {q, q_stride}, {v, v_stride}, window,        \
                                                          {gq, gq_stride}, {gv, gv_stride}, s, add),                  \
                                g_window, threads);                                                                   \
    }

#ifdef FOVEATE_SOURCES
extern "C" const char *foveate_sources() { return FOVEATE_SOURCES; }  // what all of this was compiled from
#endif

FOVEATE_AXIAL(float, float32)
FOVEATE_AXIAL(double, float64)
