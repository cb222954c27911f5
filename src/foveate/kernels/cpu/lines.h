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

template <typename T> inline void copy(const T *from, int64_t size, T *to) {
    using V = typename Vector<T, NARROW>::type;
    constexpr int64_t lanes = Vector<T, NARROW>::lanes;
    int64_t i = 0;
    for (; i + lanes <= size; i += lanes) *reinterpret_cast<V *>(to + i) = *reinterpret_cast<const V *>(from + i);
    for (; i < size; ++i) to[i] = from[i];
}

// Where a local copy of lines has (head, pixel, channel): at head * head + pixel * pixel + channel.
struct Local {
    int64_t head, pixel;
};

// Copy `count` lines, counted over all images, one after the other. Padding is left as it is.
template <typename T>
inline void gather(Lines<const T> from, const Sizes &s, int64_t first, int64_t count, int64_t channels, Local at,
                   T *to) {
    for (int64_t line = first; line < first + count; ++line)
        for (int64_t pixel = 0; pixel < s.n; ++pixel, to += at.pixel) {
            const T *source = from.at(line / s.lines, 0, line % s.lines, pixel);
            for (int64_t head = 0; head < s.heads; ++head)
                copy(source + head * from.stride[1], channels, to + head * at.head);
        }
}

// The way back.
template <typename T>
inline void scatter(const T *from, Local at, Lines<T> to, const Sizes &s, int64_t first, int64_t count,
                    int64_t channels) {
    for (int64_t line = first; line < first + count; ++line)
        for (int64_t pixel = 0; pixel < s.n; ++pixel, from += at.pixel) {
            T *target = to.at(line / s.lines, 0, line % s.lines, pixel);
            for (int64_t head = 0; head < s.heads; ++head)
                copy(from + head * at.head, channels, target + head * to.stride[1]);
        }
}

}  // namespace foveate
