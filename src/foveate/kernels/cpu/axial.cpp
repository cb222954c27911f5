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

#define FOVEATE_AXIAL(T, name)                                                                                      \
    extern "C" void axial_forward_##name(const T *q, const int64_t *q_stride, const T *v, const int64_t *v_stride,  \
                                         const T *window, T *y, const int64_t *y_stride, const int64_t *sizes,      \
                                         int threads) {                                                             \
        const foveate::Sizes s(sizes);                                                                              \
        foveate::AxialForward<T>({q, q_stride}, {v, v_stride}, window, {y, y_stride}, s, false).run_all(threads);   \
    }                                                                                                               \
    extern "C" void axial_backward_##name(const T *g, const int64_t *g_stride, const T *q, const int64_t *q_stride, \
                                          const T *v, const int64_t *v_stride, const T *window, T *gq,              \
                                          const int64_t *gq_stride, T *gv, const int64_t *gv_stride, T *g_window,   \
                                          const int64_t *sizes, int threads) {                                      \
        const foveate::Sizes s(sizes);                                                                              \
        foveate::AxialBackward<T>({g, g_stride}, {q, q_stride}, {v, v_stride}, window, {gq, gq_stride},             \
                                  {gv, gv_stride}, s, false)                                                        \
            .run_all(g_window, threads);                                                                            \
    }

#ifdef FOVEATE_SOURCES
extern "C" const char *foveate_sources() { return FOVEATE_SOURCES; }  // what all of this was compiled from
#endif

FOVEATE_AXIAL(float, float32)
FOVEATE_AXIAL(double, float64)
