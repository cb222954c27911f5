// Tensors of images, heads, lines, the pixels of a line, and channels.
#pragma once

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "products.h"

namespace foveate {

template <typename T> constexpr int64_t LANES = WIDE / sizeof(T);
template <typename T> constexpr int64_t whole(int64_t size) { return (size + LANES<T> - 1) / LANES<T> * LANES<T>; }

struct Sizes {
    int64_t images, heads, lines, n, d, c;  // n pixels in a line; d channels of queries and keys, c of values
    Sizes(int64_t images, int64_t heads, int64_t lines, int64_t n, int64_t d, int64_t c)
        : images(images), heads(heads), lines(lines), n(n), d(d), c(c) {}
    explicit Sizes(const int64_t *s) : images(s[0]), heads(s[1]), lines(s[2]), n(s[3]), d(s[4]), c(s[5]) {}
    int64_t rows() const { return images * lines * heads; }  // lines of a head
    Sizes across() const { return {images, heads, n, lines, d, c}; }
};

// `stride`: of images, heads, lines and pixels, in elements. Channels are next to one another.
template <typename T> struct Lines {
    T *data;
    const int64_t *stride;
    T *at(int64_t image, int64_t head, int64_t line, int64_t pixel) const {
        return data + image * stride[0] + head * stride[1] + line * stride[2] + pixel * stride[3];
    }
};

// The first `size` entries of a vector, and zeros.
template <typename T> inline typename Vector<T, WIDE>::type load_some(const T *from, int64_t size) {
    typename Vector<T, WIDE>::type result{};
    for (int64_t i = 0; i < size; ++i) result[i] = from[i];
    return result;
}
#if defined(__AVX512F__)
template <> inline Vector<float, WIDE>::type load_some(const float *from, int64_t size) {
    return reinterpret_cast<Vector<float, WIDE>::type>(_mm512_maskz_loadu_ps(__mmask16((1u << size) - 1), from));
}
template <> inline Vector<double, WIDE>::type load_some(const double *from, int64_t size) {
    return reinterpret_cast<Vector<double, WIDE>::type>(_mm512_maskz_loadu_pd(__mmask8((1u << size) - 1), from));
}
#endif

template <typename T> inline void copy(const T *from, int64_t size, T *to) {
    using V = typename Vector<T, NARROW>::type;
    constexpr int64_t lanes = Vector<T, NARROW>::lanes;
    int64_t i = 0;
    for (; i + lanes <= size; i += lanes) *reinterpret_cast<V *>(to + i) = *reinterpret_cast<const V *>(from + i);
    for (; i < size; ++i) to[i] = from[i];
}

// The pixels of an image, one after the other.
template <typename T> struct Pixels {
    T *data;
    int64_t head, line, pixel, n;
    Pixels(Lines<T> all, int64_t image, const Sizes &s)
        : data(all.at(image, 0, 0, 0)), head(all.stride[1]), line(all.stride[2]), pixel(all.stride[3]), n(s.n) {}
    T *at(int64_t p) const { return data + p / n * line + p % n * pixel; }
    bool even() const { return line == n * pixel; }  // as far from each to the next
};

// A few pixels of an image: channel j of pixel p of a head at data[head * head + p * row + j].
template <typename T> struct Block {
    T *data;
    int64_t head, row;
    Matrix<T> of(int64_t h) const { return {data + h * head, row}; }
};

// Where blocks are looked at: in place, or in a copy where the channels of a head are padded to `width` with zeros.
template <typename T> struct Window {
    const int64_t heads, channels, width;
    const bool packed;  // whether the heads must lie next to one another
    Buffer<T> copied;
    Window(int64_t pixels, int64_t heads, int64_t channels, int64_t width, bool packed = false)
        : heads(heads), channels(channels), width(width), packed(packed), copied(pixels * heads * width) {}

    template <typename U> bool in_place(const Pixels<U> &x) const {
        return x.even() && width == channels && (!packed || x.head == channels);
    }
    Block<T> copy() const { return {copied.data, width, heads * width}; }
    // Read pixels first, first + 1, …
    Block<const T> read(const Pixels<const T> &from, int64_t first, int64_t count) const {
        if (in_place(from)) return {from.at(first), from.head, from.pixel};
        for (int64_t p = 0; p < count; ++p)
            for (int64_t h = 0; h < heads; ++h)
                foveate::copy(from.at(first + p) + h * from.head, channels, copied.data + (p * heads + h) * width);
        return {copied.data, width, heads * width};
    }
    // Where to write them, and the end of that.
    Block<T> target(const Pixels<T> &to, int64_t first) const {
        return in_place(to) ? Block<T>{to.at(first), to.head, to.pixel} : copy();
    }
    void flush(const Pixels<T> &to, int64_t first, int64_t count, bool add = false) const {
        if (in_place(to)) return;
        for (int64_t p = 0; p < count; ++p)
            for (int64_t h = 0; h < heads; ++h) {
                const T *from = copied.data + (p * heads + h) * width;
                T *target = to.at(first + p) + h * to.head;
                if (add)
                    for (int64_t i = 0; i < channels; ++i) target[i] += from[i];
                else
                    foveate::copy(from, channels, target);
            }
    }
};

}  // namespace foveate
