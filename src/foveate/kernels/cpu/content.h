// Content attention, forward: in parts that the operator of its own and that of all of GSA have in common.
//
//     w = exp(k − peak) / total       a softmax over all pixels for each key channel, `peak` its largest key
//     context = Σ_pixels wᵀ v         (d × c)
//     y = q context
//
// The weights exist for a few pixels at a time. Every sum over pixels goes through them in their order, whatever the
// number of threads: threads share key channels, or pixels of the result.
#pragma once

#include <algorithm>
#include <limits>
#include <memory>
#include <numeric>
#include <vector>

#include "exponential.h"
#include "lines.h"

namespace foveate {

template <typename T> struct Content {
    static constexpr T LOWEST = std::numeric_limits<T>::lowest();
    static constexpr int64_t CACHED = 16384;  // bytes of the context that are to stay in the innermost cache
    const Sizes s;
    const int64_t c, keys;        // value channels of a head, padded; key channels of all heads
    const int64_t together;       // pixels at a time
    const int64_t pixels, parts;  // of an image; sets of key channels that can be done apart
    const int64_t step, block;    // key channels, of whole heads, that are summed over at a time; pixels of them
    explicit Content(const Sizes &s)
        : s(s),
          c(padded<T>(s.c)),
          keys(s.heads * s.d),
          together(some_pixels(keys)),
          pixels(s.lines * s.n),
          parts(whole<T>(keys) / LANES<T>),
          step(some_channels(s, c)),
          block(some_pixels(step)) {}

    static int64_t some_pixels(int64_t channels) {
        return std::max<int64_t>(8, std::min<int64_t>(64, 4096 / channels));
    }
    static int64_t some_channels(const Sizes &s, int64_t c) {
        const int64_t heads = std::lcm(s.d, LANES<T>), fit = CACHED / (c * sizeof(T));
        return std::min(s.heads * s.d, std::max<int64_t>(1, fit / heads) * heads);
    }

    // What a thread works with.
    struct Local {
        Window<T> queries, keys, values, out;
        Buffer<T> weights, some_values;  // … of a step: copied, as the pixels of wide maps meet in a cache
        explicit Local(const Content &all)
            : queries(all.together, all.s.heads, all.s.d, all.s.d),
              keys(all.block, all.s.heads, all.s.d, all.s.d, true),
              values(all.together, all.s.heads, all.s.c, all.c),
              out(all.together, all.s.heads, all.s.c, all.c),
              weights(all.block * whole<T>(all.step)),
              some_values(all.step < all.keys ? all.block * (all.step / all.s.d) * all.c : 0) {}
    };

    template <typename Visit> void each(int64_t first, int64_t end, Visit visit) const {
        for (; first < end; first += together) visit(first, std::min(together, end - first));
    }

    // The context, (key channels × c), of some parts of an image; peak and total of its key channels.
    void attend(Pixels<const T> k, Pixels<const T> v, int64_t part, int64_t end, Local &local, T *context, T *peak,
                T *total) const {
        const int64_t last = std::min(keys, end * LANES<T>);
        for (int64_t j = part * LANES<T>, next; j < last; j = next) {
            next = std::min(last, (j / step + 1) * step);
            sum(k, v, j, next, local, context, peak, total);
        }
    }

    // The same of key channels of one step.
    void sum(Pixels<const T> k, Pixels<const T> v, int64_t first, int64_t last, Local &local, T *context, T *peak,
             T *total) const {
        const int64_t start = first / step * step, row = whole<T>(step);
        std::fill(peak + first, peak + last, LOWEST);  // and not −∞: pixels that come first may all be masked
        std::fill(total + first, total + last, T(0));
        std::fill(context + first * c, context + last * c, T(0));
        for (int64_t from = 0; from < pixels; from += block) {
            const int64_t count = std::min(block, pixels - from);
            const Block<const T> read = local.keys.read(k, from, count);
            raise(read, first, last, count, from == 0, peak, total, context);
            weigh(read, first, last, count, peak, total, local.weights.data - start);
            const Block<const T> values =
                step < keys ? some(v, first, last, from, count, local) : local.values.read(v, from, count);
            for (int64_t j = first; j < last;) {  // what is wanted of each head
                const int64_t head = j / s.d, next = std::min(last, (head + 1) * s.d);
                product<T>(next - j, c, count, {local.weights.data + j - start, 1, row}, values.of(head - start / s.d),
                           {context + j * c, c}, true);
                j = next;
            }
        }
        for (int64_t j = first; j < last; ++j) {
            const T share = T(1) / total[j];  // NaN is what comes of 0 · ∞, where all are masked
            for (int64_t i = 0; i < c; ++i) context[j * c + i] *= share;
        }
    }

    // The values of the heads of a step that channels first … last are of, a copy.
    Block<const T> some(Pixels<const T> v, int64_t first, int64_t last, int64_t from, int64_t count,
                        Local &local) const {
        const int64_t start = first / step * step / s.d, row = step / s.d * c;
        for (int64_t p = 0; p < count; ++p)
            for (int64_t head = first / s.d; head * s.d < last; ++head)
                copy(v.at(from + p) + head * v.head, s.c, local.some_values.data + p * row + (head - start) * c);
        return {local.some_values.data, c, row};
    }

    // The result for some pixels.
    void answer(Pixels<const T> q, const T *context, int64_t first, int64_t end, Local &local, Pixels<T> y) const {
        each(first, end, [&](int64_t from, int64_t count) {
            const Block<const T> queries = local.queries.read(q, from, count);
            const Block<T> out = local.out.target(y, from);
            for (int64_t head = 0; head < s.heads; ++head)
                product<T>(count, c, s.d, queries.of(head), {context + head * s.d * c, c}, out.of(head), false);
            local.out.flush(y, from, count);
        });
    }

    // Raise each peak to the largest of its channel's keys, and scale what was summed under the old one, if there is
    // any. Out of line, as `weigh`: of a vector of channels the peaks are to stay in registers over all pixels.
    __attribute__((noinline)) void raise(Block<const T> from, int64_t first, int64_t last, int64_t count, bool begins,
                                         T *peak, T *total, T *context) const {
        using V = typename Vector<T, WIDE>::type;
        for (int64_t j = first; j < last; j += LANES<T>) {
            const int64_t size = std::min(LANES<T>, last - j);
            const V old = load(peak + j, size);
            const T *key = from.data + j;
            V tops[4] = {old, old, old, old};  // not one after the other
            int64_t pixel = 0;
            for (; pixel + 4 <= count; pixel += 4, key += 4 * from.row)
#pragma GCC unroll 4
                for (int i = 0; i < 4; ++i) tops[i] = larger(tops[i], load(key + i * from.row, size));
            for (; pixel < count; ++pixel, key += from.row) tops[0] = larger(tops[0], load(key, size));
            const V top = larger(larger(tops[0], tops[1]), larger(tops[2], tops[3]));
            const V factor = begins ? V{} : exponential(old - top);
            for (int64_t i = 0; i < size; ++i) {
                if (top[i] == old[i]) continue;
                peak[j + i] = top[i];
                if (begins) continue;
                total[j + i] *= factor[i];
                for (int64_t at = 0; at < c; ++at) context[(j + i) * c + at] *= factor[i];
            }
        }
    }

    static typename Vector<T, WIDE>::type larger(const typename Vector<T, WIDE>::type &x,
                                                 const typename Vector<T, WIDE>::type &y) {
        return x < y ? y : x;
    }

    // exp(k − peak) of key channels first … last, and its sums: of these pixels first, so that few of many are added.
    __attribute__((noinline)) void weigh(Block<const T> from, int64_t first, int64_t last, int64_t count, const T *peak,
                                         T *total, T *weights) const {
        using V = typename Vector<T, WIDE>::type;
        const int64_t row = whole<T>(step);
        for (int64_t j = first; j < last; j += LANES<T>) {
            const int64_t size = std::min(LANES<T>, last - j);
            const V top = load(peak + j, size);
            V sum{};
            const T *key = from.data + j;
            T *to = weights + j;
            for (int64_t pixel = 0; pixel < count; ++pixel, key += from.row, to += row) {
                const V weight = exponential(load(key, size) - top);
                *reinterpret_cast<V *>(to) = weight;
                sum += weight;
            }
            for (int64_t i = 0; i < size; ++i) total[j + i] += sum[i];
        }
    }

    static typename Vector<T, WIDE>::type load(const T *from, int64_t size) {
        if (size == LANES<T>) return *reinterpret_cast<const typename Vector<T, WIDE>::type *>(from);
        return load_some(from, size);
    }
};

// The operator of its own: the context of each image is kept for the backward pass, without padding.
template <typename T> struct ContentForward {
    const Content<T> all;
    Lines<const T> q, k, v;
    Lines<T> y;
    T *context, *peak, *total;

    struct Local : Content<T>::Local {
        explicit Local(const ContentForward &f) : Content<T>::Local(f.all) {}
    };
    struct Image {
        Buffer<T> context;
        explicit Image(const ContentForward &f) : context(f.all.keys * f.all.c, false) {}
    };

    void attend(int64_t image, int64_t part, int64_t end, Local &local, Image &made) const {
        const Sizes &s = all.s;
        all.attend({k, image, s}, {v, image, s}, part, end, local, made.context.data, peak + image * all.keys,
                   total + image * all.keys);
        for (int64_t j = part * LANES<T>; j < std::min(all.keys, end * LANES<T>); ++j)
            std::copy_n(made.context.data + j * all.c, s.c, context + (image * all.keys + j) * s.c);
    }

    void answer(int64_t image, int64_t first, int64_t end, Local &local, const Image &made) const {
        all.answer({q, image, all.s}, made.context.data, first, end, local, {y, image, all.s});
    }

    void compute(int64_t image, Local &local, Image &made) const {
        attend(image, 0, all.parts, local, made);
        answer(image, 0, all.pixels, local, made);
    }

    // The steps of an image, in parts that can be done apart.
    int64_t parts() const { return all.parts; }
    void first(int64_t image, int64_t part, Local &local, Image &made) const {
        attend(image, part, part + 1, local, made);
    }
    int64_t lines() const { return all.s.lines; }
    void second(int64_t image, int64_t line, Local &local, const Image &made) const {
        answer(image, line * all.s.n, (line + 1) * all.s.n, local, made);
    }
};

// All images: as many for each thread as go around, one after the other; of the rest all parts of all of them.
template <typename Work> inline void each_image(const Work &work, int64_t images, int threads) {
    using Local = typename Work::Local;
    using Image = typename Work::Image;
    const int64_t whole = images / threads * threads;
    std::vector<std::unique_ptr<Image>> made;
    for (int64_t image = whole; image < images; ++image) made.emplace_back(new Image(work));
#pragma omp parallel num_threads(threads)
    {
        Local local(work);
        if (whole) {
            Image own(work);
#pragma omp for schedule(static) nowait
            for (int64_t image = 0; image < whole; ++image) work.compute(image, local, own);
        }
#pragma omp for schedule(static) collapse(2)
        for (int64_t image = whole; image < images; ++image)
            for (int64_t part = 0; part < work.parts(); ++part) work.first(image, part, local, *made[image - whole]);
#pragma omp for schedule(static) collapse(2)
        for (int64_t image = whole; image < images; ++image)
            for (int64_t line = 0; line < work.lines(); ++line) work.second(image, line, local, *made[image - whole]);
    }
}

}  // namespace foveate
