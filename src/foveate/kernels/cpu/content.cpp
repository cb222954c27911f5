// The content attention of GSA on a CPU, forward and backward.
//
//     w = exp(k − peak) / total       a softmax over all pixels for each key channel, `peak` its largest key
//     context = Σ_pixels wᵀ v         (d × c)
//     y = q context
//
// The weights exist for a few lines of pixels at a time. Each group of lines has its own sums, relative to its own
// largest keys; they are brought together in the order of the groups, so that results are the same in every run and
// with any number of threads.

#include <algorithm>
#include <cmath>
#include <limits>

#include "lines.h"

namespace foveate {
namespace {

// x = e^x to a rounding, NaN included; below −87 it stays at e^−87 = 1.6e−38. x has room for whole vectors.
inline void exponential(float *x, int64_t size) {
    using V = Vector<float, WIDE>::type;
    typedef int32_t Integers __attribute__((vector_size(WIDE)));
    for (int64_t i = 0; i < size; i += Vector<float, WIDE>::lanes) {
        V &entry = *reinterpret_cast<V *>(x + i);
        V t = entry < -87.0f ? V{} - 87.0f : entry;
        const V power = (t * 1.44269504f + 12582912.0f) - 12582912.0f;  // x / log 2, rounded to an integer
        t = (t - power * 0.693145752f) - power * 1.42860677e-6f;        // |t| ≤ log(2) / 2
        V p = t * 1.98756915e-4f + 1.39819995e-3f;
        p = p * t + 8.33345175e-3f;
        p = p * t + 4.16657962e-2f;
        p = p * t + 1.66666657e-1f;
        p = p * t + 0.5f;
        p = p * t * t + t + 1.0f;
        const Integers exponent = (__builtin_convertvector(power, Integers) + 127) << 23;
        entry = p * reinterpret_cast<const V &>(exponent);
    }
}

inline void exponential(double *x, int64_t size) {
    for (int64_t i = 0; i < size; ++i) x[i] = std::exp(x[i]);
}

// How the work is cut: groups of lines, of which a few are looked at together.
struct Cut {
    int64_t groups, together;
    explicit Cut(const Sizes &s)
        : groups(std::min(s.lines, std::max<int64_t>(1, 16 / s.images))), together(std::max<int64_t>(1, 64 / s.n)) {}
    // Call `visit(first, count)` for the lines, counted over all images, of a group counted over all images.
    template <typename F> void each(const Sizes &s, int64_t group, F visit) const {
        const int64_t image = group / groups * s.lines, end = s.lines * (group % groups + 1) / groups;
        for (int64_t line = s.lines * (group % groups) / groups; line < end; line += together)
            visit(image + line, std::min(together, end - line));
    }
};

// Keys, [pixel][channel], become exp(k − peak).
template <typename T> inline void weigh(const T *peak, int64_t pixels, int64_t channels, T *keys) {
    for (int64_t pixel = 0; pixel < pixels; ++pixel)
        for (int64_t j = 0; j < channels; ++j) keys[pixel * channels + j] -= peak[j];
    exponential(keys, pixels * channels);
}

// What some lines of an image add up to, relative to their largest keys.
template <typename T> struct Sums {
    int64_t channels, c;  // all heads' key channels; value channels of a head, padded
    T *peak, *total, *context;
    Sums(T *data, const Sizes &s)
        : channels(s.heads * s.d), c(padded<T>(s.c)), peak(data), total(data + channels), context(total + channels) {}
    static int64_t size(const Sizes &s) { return s.heads * s.d * (padded<T>(s.c) + 2); }

    void scale(int64_t j, T factor) const {
        total[j] *= factor;
        for (int64_t i = 0; i < c; ++i) context[j * c + i] *= factor;
    }

    // Make it relative to the largest of further keys as well.
    void raise(const T *keys, int64_t pixels, T *highest) const {
        std::copy_n(peak, channels, highest);
        for (int64_t pixel = 0; pixel < pixels; ++pixel)
            for (int64_t j = 0; j < channels; ++j) highest[j] = std::max(highest[j], keys[pixel * channels + j]);
        for (int64_t j = 0; j < channels; ++j)
            if (highest[j] > peak[j]) {
                scale(j, std::exp(peak[j] - highest[j]));
                peak[j] = highest[j];
            }
    }
};

template <typename T>
void content_forward(Lines<const T> q, Lines<const T> k, Lines<const T> v, Lines<T> y, T *context, T *peak, T *total,
                     const Sizes s, int threads) {
    const Cut cut(s);
    const int64_t c = padded<T>(s.c), channels = s.heads * s.d, pixels = cut.together * s.n;
    const Local by_pixel{s.d, channels}, by_head{pixels * c, c};
    Buffer<T> memory(s.images * cut.groups * Sums<T>::size(s));
    auto sums_of = [&](int64_t group) { return Sums<T>(memory.data + group * Sums<T>::size(s), s); };
#pragma omp parallel num_threads(threads)
    {
        Buffer<T> keys(pixels * channels), values(s.heads * by_head.head), highest(channels);
#pragma omp for schedule(static)
        for (int64_t group = 0; group < s.images * cut.groups; ++group) {
            const Sums<T> sums = sums_of(group);
            // Finite, so that a line whose keys are all −∞ (masked) leaves no NaN to those after it.
            std::fill_n(sums.peak, channels, std::numeric_limits<T>::lowest());
            cut.each(s, group, [&](int64_t first, int64_t count) {
                gather(k, s, first, count, s.d, by_pixel, keys.data);
                gather(v, s, first, count, s.c, by_head, values.data);
                sums.raise(keys.data, count * s.n, highest.data);
                weigh(sums.peak, count * s.n, channels, keys.data);
                for (int64_t pixel = 0; pixel < count * s.n; ++pixel)
                    for (int64_t j = 0; j < channels; ++j) sums.total[j] += keys.data[pixel * channels + j];
                for (int64_t head = 0; head < s.heads; ++head)
                    product<T>(s.d, c, count * s.n, {keys.data + head * s.d, 1, channels},
                               {values.data + head * by_head.head, c}, {sums.context + head * s.d * c, c}, true);
            });
        }
#pragma omp for schedule(static)
        for (int64_t row = 0; row < s.images * channels; ++row) {  // a key channel of an image
            const int64_t first = row / channels * cut.groups, j = row % channels;
            const Sums<T> all = sums_of(first);
            T top = all.peak[j];
            for (int64_t group = 1; group < cut.groups; ++group) top = std::max(top, sums_of(first + group).peak[j]);
            all.scale(j, std::exp(all.peak[j] - top));
            if (top == std::numeric_limits<T>::lowest()) all.total[j] = std::numeric_limits<T>::quiet_NaN();  // no key
            for (int64_t group = 1; group < cut.groups; ++group) {
                const Sums<T> part = sums_of(first + group);
                part.scale(j, std::exp(part.peak[j] - top));
                all.total[j] += part.total[j];
                for (int64_t i = 0; i < c; ++i) all.context[j * c + i] += part.context[j * c + i];
            }
            for (int64_t i = 0; i < s.c; ++i) context[row * s.c + i] = all.context[j * c + i] /= all.total[j];
            peak[row] = top;
            total[row] = all.total[j];
        }
#pragma omp for schedule(static)
        for (int64_t group = 0; group < s.images * cut.groups; ++group) {
            const T *merged = sums_of(group / cut.groups * cut.groups).context;
            cut.each(s, group, [&](int64_t first, int64_t count) {
                gather(q, s, first, count, s.d, by_pixel, keys.data);
                for (int64_t head = 0; head < s.heads; ++head)
                    product<T>(count * s.n, c, s.d, {keys.data + head * s.d, channels}, {merged + head * s.d * c, c},
                               {values.data + head * by_head.head, c}, false);
                scatter(values.data, by_head, y, s, first, count, s.c);
            });
        }
    }
}

//     g_context = Σ_pixels qᵀ g
//     gq = g contextᵀ      gv = w g_context      gk = w ∘ (v g_contextᵀ − Σ_c context ∘ g_context)
template <typename T>
void content_backward(Lines<const T> g, Lines<const T> q, Lines<const T> k, Lines<const T> v, const T *context,
                      const T *peak, const T *total, Lines<T> gq, Lines<T> gk, Lines<T> gv, const Sizes s,
                      int threads) {
    const Cut cut(s);
    const int64_t c = padded<T>(s.c), d = padded<T>(s.d), channels = s.heads * s.d, pixels = cut.together * s.n;
    const int64_t square = s.d * c, turned_square = s.c * d;  // of one head
    const Local by_pixel{s.d, channels}, by_head{pixels * c, c}, d_by_head{pixels * d, d};
    Buffer<T> g_contexts(s.images * cut.groups * s.heads * square), means(s.images * channels);
    Buffer<T> turned(s.images * s.heads * turned_square), g_turned(s.images * s.heads * turned_square);
#pragma omp parallel num_threads(threads)
    {
        Buffer<T> weights(pixels * channels), result(s.heads * d_by_head.head);
        Buffer<T> values(s.heads * by_head.head), grads(s.heads * by_head.head);
#pragma omp for schedule(static)
        for (int64_t group = 0; group < s.images * cut.groups; ++group)
            cut.each(s, group, [&](int64_t first, int64_t count) {
                gather(q, s, first, count, s.d, by_pixel, weights.data);
                gather(g, s, first, count, s.c, by_head, grads.data);
                for (int64_t head = 0; head < s.heads; ++head)
                    product<T>(s.d, c, count * s.n, {weights.data + head * s.d, 1, channels},
                               {grads.data + head * by_head.head, c},
                               {g_contexts.data + (group * s.heads + head) * square, c}, true);
            });
#pragma omp for schedule(static)
        for (int64_t head = 0; head < s.images * s.heads; ++head) {
            T *all = g_contexts.data + (head / s.heads * cut.groups * s.heads + head % s.heads) * square;
            const T *forward = context + head * s.d * s.c;
            for (int64_t group = 1; group < cut.groups; ++group)
                for (int64_t j = 0; j < square; ++j) all[j] += all[group * s.heads * square + j];
            transpose<T>(s.d, s.c, {forward, s.c}, {turned.data + head * turned_square, d});
            transpose<T>(s.d, s.c, {all, c}, {g_turned.data + head * turned_square, d});
            for (int64_t i = 0; i < s.d; ++i)
                for (int64_t j = 0; j < s.c; ++j) means.data[head * s.d + i] += forward[i * s.c + j] * all[i * c + j];
        }
#pragma omp for schedule(static)
        for (int64_t group = 0; group < s.images * cut.groups; ++group) {
            const int64_t image = group / cut.groups, from = image * channels;
            auto times = [&](int64_t count, const T *rows, const T *matrices) {  // (pixels × c) (c × d), for each head
                for (int64_t head = 0; head < s.heads; ++head)
                    product<T>(count, d, s.c, {rows + head * by_head.head, c},
                               {matrices + (image * s.heads + head) * turned_square, d},
                               {result.data + head * d_by_head.head, d}, false);
            };
            cut.each(s, group, [&](int64_t first, int64_t count) {
                gather(g, s, first, count, s.c, by_head, grads.data);
                times(count * s.n, grads.data, turned.data);
                scatter(result.data, d_by_head, gq, s, first, count, s.d);

                gather(k, s, first, count, s.d, by_pixel, weights.data);
                weigh(peak + from, count * s.n, channels, weights.data);
                for (int64_t pixel = 0; pixel < count * s.n; ++pixel)
                    for (int64_t j = 0; j < channels; ++j) weights.data[pixel * channels + j] /= total[from + j];
                gather(v, s, first, count, s.c, by_head, values.data);
                times(count * s.n, values.data, g_turned.data);
                for (int64_t head = 0; head < s.heads; ++head)
                    for (int64_t pixel = 0; pixel < count * s.n; ++pixel) {
                        T *row = result.data + head * d_by_head.head + pixel * d;
                        const T *weight = weights.data + pixel * channels + head * s.d;
                        const T *mean = means.data + from + head * s.d;
                        for (int64_t j = 0; j < s.d; ++j) row[j] = weight[j] * (row[j] - mean[j]);
                    }
                scatter(result.data, d_by_head, gk, s, first, count, s.d);

                for (int64_t head = 0; head < s.heads; ++head)
                    product<T>(count * s.n, c, s.d, {weights.data + head * s.d, channels},
                               {g_contexts.data + (image * cut.groups * s.heads + head) * square, c},
                               {values.data + head * by_head.head, c}, false);
                scatter(values.data, by_head, gv, s, first, count, s.c);
            });
        }
    }
}

}  // namespace
}  // namespace foveate

#define FOVEATE_CONTENT(T, name)                                                                                       \
    extern "C" void content_forward_##name(const T *q, const int64_t *q_stride, const T *k, const int64_t *k_stride,   \
                                           const T *v, const int64_t *v_stride, T *y, const int64_t *y_stride,         \
                                           T *context, T *peak, T *total, const int64_t *sizes, int threads) {         \
        foveate::content_forward<T>({q, q_stride}, {k, k_stride}, {v, v_stride}, {y, y_stride}, context, peak, total,  \
                                    foveate::Sizes(sizes), threads);                                                   \
    }                                                                                                                  \
    extern "C" void content_backward_##name(const T *g, const int64_t *g_stride, const T *q, const int64_t *q_stride,  \
                                            const T *k, const int64_t *k_stride, const T *v, const int64_t *v_stride,  \
                                            const T *context, const T *peak, const T *total, T *gq,                    \
                                            const int64_t *gq_stride, T *gk, const int64_t *gk_stride, T *gv,          \
                                            const int64_t *gv_stride, const int64_t *sizes, int threads) {             \
        foveate::content_backward<T>({g, g_stride}, {q, q_stride}, {k, k_stride}, {v, v_stride}, context, peak, total, \
                                     {gq, gq_stride}, {gk, gk_stride}, {gv, gv_stride}, foveate::Sizes(sizes),         \
                                     threads);                                                                         \
    }

FOVEATE_CONTENT(float, float32)
FOVEATE_CONTENT(double, float64)
