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

#include "exponential.h"
#include "lines.h"

namespace foveate {

template <typename T> struct Content {
    static constexpr T LOWEST = std::numeric_limits<T>::lowest();
    const Sizes s;
    const int64_t c, keys;        // value channels of a head, padded; key channels of all heads
    const int64_t together;       // pixels at a time
    const int64_t pixels, parts;  // of an image; sets of key channels that can be done apart
    explicit Content(const Sizes &s)
        : s(s),
          c(padded<T>(s.c)),
          keys(s.heads * s.d),
          together(std::max<int64_t>(8, std::min<int64_t>(64, 4096 / (s.heads * s.d)))),
          pixels(s.lines * s.n),
          parts(whole<T>(keys) / LANES<T>) {}

    // What a thread works with.
    struct Local {
        Window<T> queries, keys, values, out;
        Buffer<T> weights;
        explicit Local(const Content &all)
            : queries(all.together, all.s.heads, all.s.d, all.s.d),
              keys(all.together, all.s.heads, all.s.d, all.s.d, true),
              values(all.together, all.s.heads, all.s.c, all.c),
              out(all.together, all.s.heads, all.s.c, all.c),
              weights(all.together * whole<T>(all.keys)) {}
    };

    template <typename Visit> void each(int64_t first, int64_t end, Visit visit) const {
        for (; first < end; first += together) visit(first, std::min(together, end - first));
    }

    // The context, (key channels × c), of some parts of an image; peak and total of its key channels.
    void attend(Pixels<const T> k, Pixels<const T> v, int64_t part, int64_t end, Local &local, T *context, T *peak,
                T *total) const {
        const int64_t first = part * LANES<T>, last = std::min(keys, end * LANES<T>);
        std::fill(peak + first, peak + last, LOWEST);  // and not −∞: pixels that come first may all be masked
        std::fill(total + first, total + last, T(0));
        std::fill(context + first * c, context + last * c, T(0));
        each(0, pixels, [&](int64_t from, int64_t count) {
            const Block<const T> block = local.keys.read(k, from, count);
            raise(block, first, last, count, peak, total, context);
            weigh(block, first, last, count, peak, total, local.weights.data);
            const Block<const T> values = local.values.read(v, from, count);
            for (int64_t j = first; j < last;) {  // what is wanted of each head
                const int64_t head = j / s.d, next = std::min(last, (head + 1) * s.d);
                product<T>(next - j, c, count, {local.weights.data + j, 1, whole<T>(keys)}, values.of(head),
                           {context + j * c, c}, true);
                j = next;
            }
        });
        for (int64_t j = first; j < last; ++j) {
            if (peak[j] == LOWEST) total[j] = std::numeric_limits<T>::quiet_NaN();  // all are masked
            for (int64_t i = 0; i < c; ++i) context[j * c + i] /= total[j];
        }
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

    // Raise each peak to the largest of its channel's keys, and scale what was summed under the old one. Out of line,
    // as `weigh`: of a vector of channels the peaks are to stay in a register over all pixels.
    __attribute__((noinline)) void raise(Block<const T> from, int64_t first, int64_t last, int64_t count, T *peak,
                                         T *total, T *context) const {
        using V = typename Vector<T, WIDE>::type;
        for (int64_t j = first; j < last; j += LANES<T>) {
            const int64_t size = std::min(LANES<T>, last - j);
            const V old = load(peak + j, size);
            V top = old;
            const T *key = from.data + j;
            for (int64_t pixel = 0; pixel < count; ++pixel, key += from.row) {
                const V keys = load(key, size);
                top = top < keys ? keys : top;
            }
            const V factor = exponential(old - top);
            for (int64_t i = 0; i < size; ++i) {
                if (top[i] == old[i]) continue;
                peak[j + i] = top[i];
                total[j + i] *= factor[i];
                for (int64_t at = 0; at < c; ++at) context[(j + i) * c + at] *= factor[i];
            }
        }
    }

    // exp(k − peak) of key channels first … last, and its sums.
    __attribute__((noinline)) void weigh(Block<const T> from, int64_t first, int64_t last, int64_t count, const T *peak,
                                         T *total, T *weights) const {
        using V = typename Vector<T, WIDE>::type;
        const int64_t row = whole<T>(keys);
        for (int64_t j = first; j < last; j += LANES<T>) {
            const int64_t size = std::min(LANES<T>, last - j);
            const V top = load(peak + j, size);
            V sum = load(total + j, size);
            const T *key = from.data + j;
            T *to = weights + j;
            for (int64_t pixel = 0; pixel < count; ++pixel, key += from.row, to += row) {
                const V weight = exponential(load(key, size) - top);
                *reinterpret_cast<V *>(to) = weight;
                sum += weight;
            }
            for (int64_t i = 0; i < size; ++i) total[j + i] = sum[i];
        }
    }

    static typename Vector<T, WIDE>::type load(const T *from, int64_t size) {
        if (size == LANES<T>) return *reinterpret_cast<const typename Vector<T, WIDE>::type *>(from);
        return load_some(from, size);
    }
};

}  // namespace foveate
