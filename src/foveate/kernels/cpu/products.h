// Products of small matrices that stay in the innermost caches, in the vectors of the compiler's target.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

namespace foveate {

#if defined(__AVX512F__)
constexpr int64_t WIDE = 64;  // bytes of a vector
#else
constexpr int64_t WIDE = 32;
#endif
constexpr int64_t NARROW = 32;  // rows of local matrices are padded to a multiple of it

template <typename T, int64_t bytes> struct Vector {
    typedef T type __attribute__((vector_size(bytes), aligned(alignof(T)), may_alias));
    static constexpr int64_t lanes = bytes / sizeof(T);
};

template <typename T> constexpr int64_t padded(int64_t size) {
    constexpr int64_t unit = NARROW / sizeof(T);
    return (size + unit - 1) / unit * unit;
}

// Memory that starts on a cache line, and holds zeros unless it is to be written first.
template <typename T> struct Buffer {
    T *data;
    size_t bytes;
    explicit Buffer(int64_t size, bool zeros = true) : bytes((size * sizeof(T) + 127) / 64 * 64) {
        data = static_cast<T *>(std::aligned_alloc(64, bytes));
        if (!data) throw std::bad_alloc();
        if (zeros) clear();
    }
    ~Buffer() { std::free(data); }
    Buffer(const Buffer &) = delete;
    Buffer &operator=(const Buffer &) = delete;
    void clear() { std::memset(data, 0, bytes); }
};

// Entry (i, j) stands at data[i * row + j * column].
template <typename T> struct Matrix {
    T *data;
    int64_t row, column = 1;
    Matrix turned() const { return {data, column, row}; }
    Matrix from(int64_t i) const { return {data + i * row, row, column}; }
};

// to[j][i] = from[i][j].
template <typename T> inline void transpose(int64_t rows, int64_t columns, Matrix<const T> from, Matrix<T> to) {
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < columns; ++j) to.data[j * to.row + i] = from.data[i * from.row + j];
}

// c = a b, or c += a b, for ROWS rows and COUNT vectors of columns: all sums in registers, and added when they are
// complete, so that of many products in turn few numbers are added to a large one.
template <typename T, int64_t bytes, int ROWS, int COUNT>
__attribute__((always_inline)) inline void block(int64_t depth, Matrix<const T> a, Matrix<const T> b, Matrix<T> c,
                                                 bool add) {
    using V = typename Vector<T, bytes>::type;
    constexpr int64_t lanes = Vector<T, bytes>::lanes;
    V sums[ROWS][COUNT];
    for (int i = 0; i < ROWS; ++i)
        for (int j = 0; j < COUNT; ++j) sums[i][j] = V{};
    for (int64_t p = 0; p < depth; ++p) {
        V columns[COUNT];
        for (int j = 0; j < COUNT; ++j) columns[j] = *reinterpret_cast<const V *>(b.data + p * b.row + j * lanes);
        for (int i = 0; i < ROWS; ++i) {
            const T factor = a.data[i * a.row + p * a.column];
            for (int j = 0; j < COUNT; ++j) sums[i][j] += factor * columns[j];
        }
    }
    for (int i = 0; i < ROWS; ++i)
        for (int j = 0; j < COUNT; ++j) {
            V *to = reinterpret_cast<V *>(c.data + i * c.row + j * lanes);
            *to = add ? *to + sums[i][j] : sums[i][j];
        }
}

// Rows of two and of three vectors at a time: as many sums as there are registers for.
#if defined(__AVX512F__)
constexpr int ROWS = 8, ROWS_OF_THREE = 8;
#else
constexpr int ROWS = 6, ROWS_OF_THREE = 4;
#endif

template <typename T, int64_t bytes, int COUNT, int MOST>
__attribute__((always_inline)) inline void rows(int64_t count, int64_t depth, Matrix<const T> a, Matrix<const T> b,
                                                Matrix<T> c, bool add) {
    if (count == MOST)
        block<T, bytes, MOST, COUNT>(depth, a, b, c, add);
    else if constexpr (MOST > 1)
        rows<T, bytes, COUNT, MOST - 1>(count, depth, a, b, c, add);
}

// All rows of some columns, in blocks of nearly as many: few sums at a time would wait for one another.
template <typename T, int64_t bytes, int COUNT, int MOST>
__attribute__((always_inline)) inline void columns(int64_t count, int64_t depth, Matrix<const T> a, Matrix<const T> b,
                                                   Matrix<T> c, bool add) {
    const int64_t parts = (count + MOST - 1) / MOST;
    for (int64_t part = 0, i = 0; part < parts; ++part) {
        const int64_t some = (count - i) / (parts - part);
        rows<T, bytes, COUNT, MOST>(some, depth, a.from(i), b, c.from(i), add);
        i += some;
    }
}

// c = a b, or c += a b: `count` rows, `size` columns (a multiple of the padding, next to one another in b and c).
// Kept out of line: where it is part of a long function the compiler runs out of registers.
template <typename T>
__attribute__((noinline)) void product(int64_t count, int64_t size, int64_t depth, Matrix<const T> a, Matrix<const T> b,
                                       Matrix<T> c, bool add) {
    constexpr int64_t wide = WIDE / sizeof(T), narrow = NARROW / sizeof(T);
    int64_t j = 0;
    auto right = [&](auto m) {
        m.data += j;
        return m;
    };
    if (size >= 3 * wide && size / wide % 2 == 1) {
        columns<T, WIDE, 3, ROWS_OF_THREE>(count, depth, a, b, c, add);
        j = 3 * wide;
    }
    for (; j + 2 * wide <= size; j += 2 * wide) columns<T, WIDE, 2, ROWS>(count, depth, a, right(b), right(c), add);
    for (; j + wide <= size; j += wide) columns<T, WIDE, 1, 8>(count, depth, a, right(b), right(c), add);
    for (; j < size; j += narrow) columns<T, NARROW, 1, 8>(count, depth, a, right(b), right(c), add);
}

}  // namespace foveate
