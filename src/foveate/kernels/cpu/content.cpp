// The content attention of GSA on a CPU as an operator of its own, forward and backward.

#include "content_backward.h"

#define FOVEATE_CONTENT(T, name)                                                                                       \
    extern "C" void content_forward_##name(const T *q, const int64_t *q_stride, const T *k, const int64_t *k_stride,   \
                                           const T *v, const int64_t *v_stride, T *y, const int64_t *y_stride,         \
                                           T *context, T *peak, T *total, const int64_t *sizes, int threads) {         \
        const foveate::Sizes s(sizes);                                                                                 \
        const foveate::ContentForward<T> content{foveate::Content<T>(s), {q, q_stride}, {k, k_stride}, {v, v_stride},  \
                                                 {y, y_stride},          context,       peak,          total};         \
        foveate::each_image(content, s.images, threads);                                                               \
    }                                                                                                                  \
    extern "C" void content_backward_##name(const T *g, const int64_t *g_stride, const T *q, const int64_t *q_stride,  \
                                            const T *k, const int64_t *k_stride, const T *v, const int64_t *v_stride,  \
                                            const T *context, const T *peak, const T *total, T *gq,                    \
                                            const int64_t *gq_stride, T *gk, const int64_t *gk_stride, T *gv,          \
                                            const int64_t *gv_stride, const int64_t *sizes, int threads) {             \
        const foveate::Sizes s(sizes);                                                                                 \
        const foveate::ContentBackward<T> content({g, g_stride}, {q, q_stride}, {k, k_stride}, {v, v_stride}, context, \
                                                  peak, total, {gq, gq_stride}, {gk, gk_stride}, {gv, gv_stride}, s,   \
                                                  false);                                                              \
        foveate::each_image(content, s.images, threads);                                                               \
    }

FOVEATE_CONTENT(float, float32)
FOVEATE_CONTENT(double, float64)
