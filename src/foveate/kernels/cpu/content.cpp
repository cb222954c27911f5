// The content attention of GSA on a CPU, forward and backward.
//
//     w = exp(k − peak) / sum         a softmax over all pixels for each key channel: `peak` the largest, (d)
//     context = Σ_pixels wᵀ v,  (d × c)         y = q context
//
// The weights exist for one line of pixels at a time. Each group of lines has its own sums, relative to its own
// largest key; they are brought together in the order of the groups, so that results are the same in every run and
// with any number of threads.

#include <algorithm>
#include <cmath>
#include <limits>

#include "lines.h"

namespace foveate {
namespace {

// e^x to a rounding, NaN included; below −87 it stays at e^−87 = 1.6e−38. x is padded.
inline void exponential(float *x, int64_t size) {
    using V = Vector<float, NARROW>::type;
    typedef int32_t Integers __attribute__((vector_size(NARROW)));
    for (int64_t i = 0; i < size; i += Vector<float, NARROW>::lanes) {
        V &entry = *reinterpret_cast<V *>(x + i);
        V t = entry < -87.0f ? V{} - 87.0f : entry;
        const V power = (t * 1.44269504f + 12582912.0f) - 12582912.0f;  // log2(e) x, rounded to an integer
        t = (t - power * 0.693145752f) - power * 1.42860677e-6f;        // less its logarithm: |t| ≤ log(2) / 2
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

// Some lines of an image.
struct Group {
    int64_t image, from, to;
    Group(int64_t index, int64_t groups, const Sizes &s)
        : image(index / groups), from(image * s.lines + s.lines * (index % groups) / groups),
          to(image * s.lines + s.lines * (index % groups + 1) / groups) {}
    static int64_t count(const Sizes &s) { return std::min(s.lines, std::max<int64_t>(1, 32 / s.images)); }
};

// exp(k − peak), of all heads of one line: to[head][pixel][d].
template <typename T>
void weigh(Lines<const T> k, const T *peak, const Sizes &s, int64_t line, T *to) {
    gather(k, s, line, s.d, s.d, to);
    for (int64_t head = 0; head < s.heads; ++head)
        for (int64_t pixel = 0; pixel < s.n; ++pixel)
            for (int64_t j = 0; j < s.d; ++j) to[(head * s.n + pixel) * s.d + j] -= peak[head * s.d + j];
    exponential(to, s.heads * s.n * s.d);
}

template <typename T>
void largest(Lines<const T> k, const Sizes &s, const Group &group, T *peak) {
    std::fill_n(peak, s.heads * s.d, -std::numeric_limits<T>::infinity());
    for (int64_t line = group.from; line < group.to; ++line)
        for (int64_t pixel = 0; pixel < s.n; ++pixel)
            for (int64_t head = 0; head < s.heads; ++head) {
                const T *key = k.at(group.image, head, line % s.lines, pixel);
                for (int64_t j = 0; j < s.d; ++j) peak[head * s.d + j] = std::max(peak[head * s.d + j], key[j]);
            }
}

template <typename T>
void content_forward(Lines<const T> q, Lines<const T> k, Lines<const T> v, Lines<T> y, T *context, T *peak_out,
                     T *sum_out, const Sizes s, int threads) {
    const int64_t values = padded<T>(s.c), channels = s.heads * s.d, groups = Group::count(s);
    Buffer<T> peaks(s.images * groups * channels), sums(s.images * groups * channels);
    Buffer<T> contexts(s.images * groups * channels * values);
#pragma omp parallel num_threads(threads)
    {
        Buffer<T> d_line(padded<T>(s.n * channels)), v_line(s.heads * s.n * values), y_line(s.heads * s.n * values);
#pragma omp for schedule(static)
        for (int64_t index = 0; index < s.images * groups; ++index) {
            const Group group(index, groups, s);
            T *peak = peaks.data + index * channels, *sum = sums.data + index * channels;
            largest(k, s, group, peak);
            for (int64_t line = group.from; line < group.to; ++line) {
                weigh(k, peak, s, line, d_line.data);
                gather(v, s, line, s.c, values, v_line.data);
                for (int64_t head = 0; head < s.heads; ++head) {
                    const T *weights = d_line.data + head * s.n * s.d;
                    for (int64_t pixel = 0; pixel < s.n; ++pixel)
                        for (int64_t j = 0; j < s.d; ++j) sum[head * s.d + j] += weights[pixel * s.d + j];
                    product<T>(s.d, values, s.n, {weights, 1, s.d}, {v_line.data + head * s.n * values, values},
                               {contexts.data + (index * channels + head * s.d) * values, values}, true);
                }
            }
        }
#pragma omp for schedule(static)
        for (int64_t row = 0; row < s.images * channels; ++row) {  // a key channel of an image
            const int64_t first = row / channels * groups * channels + row % channels;
            T peak = peaks.data[first], sum = 0;
            for (int64_t g = 1; g < groups; ++g) peak = std::max(peak, peaks.data[first + g * channels]);
            T *merged = contexts.data + first * values;
            for (int64_t g = 0; g < groups; ++g) {
                const int64_t at = first + g * channels;
                const T factor = std::exp(peaks.data[at] - peak);
                sum += factor * sums.data[at];
                for (int64_t j = 0; j < s.c; ++j)
                    merged[j] = (g ? merged[j] : 0) + factor * contexts.data[at * values + j];
            }
            for (int64_t j = 0; j < s.c; ++j) context[row * s.c + j] = merged[j] /= sum;
            peak_out[row] = peak;
            sum_out[row] = sum;
        }
#pragma omp for schedule(static)
        for (int64_t line = 0; line < s.images * s.lines; ++line) {
            gather(q, s, line, s.d, s.d, d_line.data);
            const T *merged = contexts.data + line / s.lines * groups * channels * values;
            for (int64_t head = 0; head < s.heads; ++head)
                product<T>(s.n, values, s.d, {d_line.data + head * s.n * s.d, s.d},
                           {merged + head * s.d * values, values}, {y_line.data + head * s.n * values, values}, false);
            scatter(y_line.data, values, y, s, line, s.c);
        }
    }
}

//     gq = g contextᵀ      gv = w g_context      gk = w ∘ (v g_contextᵀ − Σ_c context ∘ g_context)
//     g_context = Σ_pixels qᵀ g
template <typename T>
void content_backward(Lines<const T> g, Lines<const T> q, Lines<const T> k, Lines<const T> v, const T *context,
                      const T *peak, const T *sum, Lines<T> gq, Lines<T> gk, Lines<T> gv, const Sizes s, int threads) {
    const int64_t keys = padded<T>(s.d), values = padded<T>(s.c), channels = s.heads * s.d, groups = Group::count(s);
    Buffer<T> g_contexts(s.images * groups * channels * values);
    Buffer<T> turned(s.images * s.heads * s.c * keys), g_turned(s.images * s.heads * s.c * keys);
    Buffer<T> means(s.images * channels);
#pragma omp parallel num_threads(threads)
    {
        Buffer<T> d_line(padded<T>(s.n * channels)), gd_line(s.heads * s.n * keys);
        Buffer<T> v_line(s.heads * s.n * values), g_line(s.heads * s.n * values);
#pragma omp for schedule(static)
        for (int64_t index = 0; index < s.images * groups; ++index) {
            const Group group(index, groups, s);
            for (int64_t line = group.from; line < group.to; ++line) {
                gather(q, s, line, s.d, s.d, d_line.data);
                gather(g, s, line, s.c, values, g_line.data);
                for (int64_t head = 0; head < s.heads; ++head)
                    product<T>(s.d, values, s.n, {d_line.data + head * s.n * s.d, 1, s.d},
                               {g_line.data + head * s.n * values, values},
                               {g_contexts.data + (index * channels + head * s.d) * values, values}, true);
            }
        }
#pragma omp for schedule(static)
        for (int64_t head = 0; head < s.images * s.heads; ++head) {
            const int64_t first = (head / s.heads * groups * channels + head % s.heads * s.d) * values;
            T *merged = g_contexts.data + first;
            for (int64_t group = 1; group < groups; ++group)
                for (int64_t j = 0; j < s.d * values; ++j) merged[j] += merged[group * channels * values + j];
            transpose(context + head * s.d * s.c, s.d, s.c, s.c, turned.data + head * s.c * keys, keys);
            transpose(merged, s.d, s.c, values, g_turned.data + head * s.c * keys, keys);
            for (int64_t i = 0; i < s.d; ++i)
                for (int64_t j = 0; j < s.c; ++j)
                    means.data[head * s.d + i] += context[(head * s.d + i) * s.c + j] * merged[i * values + j];
        }
#pragma omp for schedule(static)
        for (int64_t line = 0; line < s.images * s.lines; ++line) {
            const int64_t image = line / s.lines;
            gather(g, s, line, s.c, values, g_line.data);
            gather(v, s, line, s.c, values, v_line.data);
            auto across = [&](const T *pixels, const T *matrices) {  // times the c × d matrices of the heads
                for (int64_t head = 0; head < s.heads; ++head)
                    product<T>(s.n, keys, s.c, {pixels + head * s.n * values, values},
                               {matrices + (image * s.heads + head) * s.c * keys, keys},
                               {gd_line.data + head * s.n * keys, keys}, false);
            };
            across(g_line.data, turned.data);
            scatter(gd_line.data, keys, gq, s, line, s.d);
            across(v_line.data, g_turned.data);
            weigh(k, peak + image * channels, s, line, d_line.data);
            for (int64_t head = 0; head < s.heads; ++head) {
                const int64_t first = image * channels + head * s.d;
                for (int64_t pixel = 0; pixel < s.n; ++pixel)
                    for (int64_t j = 0; j < s.d; ++j) {
                        T &weight = d_line.data[(head * s.n + pixel) * s.d + j];
                        T &entry = gd_line.data[(head * s.n + pixel) * keys + j];
                        weight /= sum[first + j];
                        entry = weight * (entry - means.data[first + j]);
                    }
                product<T>(s.n, values, s.d, {d_line.data + head * s.n * s.d, s.d},
                           {g_contexts.data + (image * groups * channels + head * s.d) * values, values},
                           {g_line.data + head * s.n * values, values}, false);
            }
            scatter(gd_line.data, keys, gk, s, line, s.d);
            scatter(g_line.data, values, gv, s, line, s.c);
        }
    }
}

}  // namespace
}  // namespace foveate

#define FOVEATE_CONTENT(T, name)                                                                                       \
    extern "C" void content_forward_##name(const T *q, const int64_t *q_stride, const T *k, const int64_t *k_stride,   \
                                           const T *v, const int64_t *v_stride, T *y, const int64_t *y_stride,         \
                                           T *context, T *peak, T *sum, const int64_t *sizes, int threads) {                \
        foveate::content_forward<T>({q, q_stride}, {k, k_stride}, {v, v_stride}, {y, y_stride}, context, peak, sum,    \
                                    foveate::Sizes(sizes), threads);                                                   \
    }                                                                                                                  \
    extern "C" void content_backward_##name(                                                                           \
        const T *g, const int64_t *g_stride, const T *q, const int64_t *q_stride, const T *k, const int64_t *k_stride, \
        const T *v, const int64_t *v_stride, const T *context, const T *peak, const T *sum, T *gq,                     \
        const int64_t *gq_stride, T *gk, const int64_t *gk_stride, T *gv, const int64_t *gv_stride, const int64_t *sizes, int threads) {         \
        foveate::content_backward<T>({g, g_stride}, {q, q_stride}, {k, k_stride}, {v, v_stride}, context, peak, sum,   \
                                     {gq, gq_stride}, {gk, gk_stride}, {gv, gv_stride}, foveate::Sizes(sizes),         \
                                     threads);                                                                         \
    }

FOVEATE_CONTENT(float, float32)
FOVEATE_CONTENT(double, float64)
