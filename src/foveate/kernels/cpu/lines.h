// Tensors of images, heads, lines, the pixels of a line, and channels.
#pragma once

#include "products.h"

namespace foveate {

struct Sizes {
    int64_t images, heads, lines, n, d, c;  // n pixels in a line; d channels of queries and keys, c of values
    explicit Sizes(const int64_t *s) : images(s[0]), heads(s[1]), lines(s[2]), n(s[3]), d(s[4]), c(s[5]) {}
};

// `stride`: of images, heads, lines and pixels, in elements. Channels are next to one another.
template <typename T> struct Lines {
    T *data;
    const int64_t *stride;
    T *at(int64_t image, int64_t head, int64_t line, int64_t pixel) const {
        return data + image * stride[0] + head * stride[1] + line * stride[2] + pixel * stride[3];
    }
};

// Copy one line, counted over all images, to `to[head][pixel][width]`. Padding is left as it is.
template <typename T>
inline void gather(Lines<const T> from, const Sizes &s, int64_t line, int64_t channels, int64_t width, T *to) {
    for (int64_t pixel = 0; pixel < s.n; ++pixel)
        for (int64_t head = 0; head < s.heads; ++head)
            std::memcpy(to + (head * s.n + pixel) * width, from.at(line / s.lines, head, line % s.lines, pixel),
                        channels * sizeof(T));
}

// The way back.
template <typename T>
inline void scatter(const T *from, int64_t width, Lines<T> to, const Sizes &s, int64_t line, int64_t channels) {
    for (int64_t pixel = 0; pixel < s.n; ++pixel)
        for (int64_t head = 0; head < s.heads; ++head)
            std::memcpy(to.at(line / s.lines, head, line % s.lines, pixel), from + (head * s.n + pixel) * width,
                        channels * sizeof(T));
}

}  // namespace foveate
