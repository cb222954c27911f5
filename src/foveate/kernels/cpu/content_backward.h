// The gradients of content attention, of an image after the other. With g the gradient of y, and w the weights:
//
//     g_context = Σ_pixels qᵀ g
//     gq = g contextᵀ      gv = w g_context      gk = w ∘ (v g_contextᵀ − Σ_c context ∘ g_context)
#pragma once

#include "content.h"
#include "lanes.h"

namespace foveate {

template <typename T> struct ContentBackward {
    const Content<T> all;
    const Sizes s;
    const int64_t c, d, keys, row;
    Lines<const T> g, q, k, v;
    Lines<T> gq, gk, gv;
    const T *context, *peak, *total;
    const bool add;  // to what gq and gv hold

    ContentBackward(Lines<const T> g, Lines<const T> q, Lines<const T> k, Lines<const T> v, const T *context,
                    const T *peak, const T *total, Lines<T> gq, Lines<T> gk, Lines<T> gv, const Sizes &s, bool add)
        : all(s),
          s(s),
          c(all.c),
          d(padded<T>(s.d)),
          keys(all.keys),
          row(whole<T>(keys)),
          g(g),
          q(q),
          k(k),
          v(v),
          gq(gq),
          gk(gk),
          gv(gv),
          context(context),
          peak(peak),
          total(total),
          add(add) {}

    // What a thread works with.
    struct Local {
        Window<T> queries, keys, values, grads, out, g_query, g_key;
        Buffer<T> weights;
        explicit Local(const ContentBackward &b)
            : queries(b.all.together, b.s.heads, b.s.d, b.s.d),
              keys(b.all.together, b.s.heads, b.s.d, b.s.d, true),
              values(b.all.together, b.s.heads, b.s.c, b.s.c),
              grads(b.all.together, b.s.heads, b.s.c, b.c),
              out(b.all.together, b.s.heads, b.s.c, b.c),
              g_query(b.all.together, b.s.heads, b.s.d, b.d),
              g_key(b.all.together, b.s.heads, b.s.d, b.d),
              weights(b.all.together * b.row) {}
    };

    // What the first step of an image leaves for the second: g_context (key channels × c), its transpose and that of
    // the context (for each head c × d, padded with zeros), and what each key channel loses.
    struct Image {
        Buffer<T> g_context, g_turned, turned, means;
        explicit Image(const ContentBackward &b)
            : g_context(b.keys * b.c, false),
              g_turned(b.s.heads * b.s.c * b.d),
              turned(b.s.heads * b.s.c * b.d),
              means(b.s.heads * b.d) {}
    };

    // g_context of some heads of an image, and what follows from it.
    void collect(int64_t image, int64_t first, int64_t end, Local &local, Image &made) const {
        const Pixels<const T> from_q{q, image, s}, from_g{g, image, s};
        std::fill_n(made.g_context.data + first * s.d * c, (end - first) * s.d * c, T(0));
        all.each(0, all.pixels, [&](int64_t from, int64_t count) {
            const Block<const T> queries = local.queries.read(from_q, from, count);
            const Block<const T> grads = local.grads.read(from_g, from, count);
            for (int64_t head = first; head < end; ++head)
                product<T>(s.d, c, count, queries.of(head).turned(), grads.of(head),
                           {made.g_context.data + head * s.d * c, c}, true);
        });
        for (int64_t head = first; head < end; ++head) {
            T *ahead = made.turned.data + head * s.c * d, *back = made.g_turned.data + head * s.c * d;
            turn({context + (image * s.heads + head) * s.d * s.c, s.c}, {ahead, d});
            turn({made.g_context.data + head * s.d * c, c}, {back, d});
            T *mean = made.means.data + head * d;
            std::fill_n(mean, d, T(0));
            for (int64_t j = 0; j < s.c; ++j, ahead += d, back += d)
                for (int64_t i = 0; i < s.d; ++i) mean[i] += ahead[i] * back[i];
        }
    }

    // The transpose of a head's (d × c).
    void turn(Matrix<const T> from, Matrix<T> to) const {
        constexpr int64_t side = NARROW_LANES<T>;
        const int64_t rows = s.d / side * side, columns = s.c / side * side;
        for (int64_t i = 0; i < rows; i += side)
            for (int64_t j = 0; j < columns; j += side) {
                Narrow<T> square[side];
#pragma GCC unroll 8
                for (int64_t k = 0; k < side; ++k)
                    square[k] = *reinterpret_cast<const Narrow<T> *>(from.data + (i + k) * from.row + j);
                transpose_square(square);
#pragma GCC unroll 8
                for (int64_t k = 0; k < side; ++k)
                    *reinterpret_cast<Narrow<T> *>(to.data + (j + k) * to.row + i) = square[k];
            }
        transpose<T>(rows, s.c - columns, {from.data + columns, from.row}, {to.data + columns * to.row, to.row});
        transpose<T>(s.d - rows, s.c, from.from(rows), {to.data + rows, to.row});
    }

    // The gradients at some pixels of an image.
    void answer(int64_t image, int64_t first, int64_t end, Local &local, const Image &made) const {
        const Pixels<T> to_q{gq, image, s}, to_k{gk, image, s}, to_v{gv, image, s};
        const bool add_q = add && local.g_query.in_place(to_q), add_v = add && local.out.in_place(to_v);
        all.each(first, end, [&](int64_t from, int64_t count) {
            const Block<const T> grads = local.grads.read({g, image, s}, from, count);
            const Block<const T> values = local.values.read({v, image, s}, from, count);
            const Block<T> g_query = local.g_query.target(to_q, from), g_key = local.g_key.target(to_k, from);
            const Block<T> g_value = local.out.target(to_v, from);
            weigh(local.keys.read({k, image, s}, from, count), image, count, local.weights.data);
            for (int64_t head = 0; head < s.heads; ++head) {
                const Matrix<const T> weights{local.weights.data + head * s.d, row};
                product<T>(count, d, s.c, grads.of(head), {made.turned.data + head * s.c * d, d}, g_query.of(head),
                           add_q);
                product<T>(count, d, s.c, values.of(head), {made.g_turned.data + head * s.c * d, d}, g_key.of(head),
                           false);
                product<T>(count, c, s.d, weights, {made.g_context.data + head * s.d * c, c}, g_value.of(head), add_v);
                soften(count, g_key.of(head), weights.data, made.means.data + head * d);
            }
            local.g_query.flush(to_q, from, count, add);
            local.g_key.flush(to_k, from, count);
            local.out.flush(to_v, from, count, add);
        });
    }

    // gk = w ∘ (gk − means), in whole vectors: what is beyond a head's channels is padding or not yet written.
    __attribute__((noinline)) void soften(int64_t count, Matrix<T> g_key, const T *weights, const T *mean) const {
        using V = Narrow<T>;
        for (int64_t j = 0; j < d; j += NARROW_LANES<T>) {
            const V lost = *reinterpret_cast<const V *>(mean + j);
            T *out = g_key.data + j;
            const T *weight = weights + j;
            for (int64_t pixel = 0; pixel < count; ++pixel, out += g_key.row, weight += row)
                *reinterpret_cast<V *>(out) =
                    *reinterpret_cast<const V *>(weight) * (*reinterpret_cast<V *>(out) - lost);
        }
    }

    // The weights of the softmax.
    void weigh(Block<const T> from, int64_t image, int64_t count, T *weights) const {
        using V = typename Vector<T, WIDE>::type;
        for (int64_t j = 0; j < keys; j += LANES<T>) {
            const int64_t size = std::min(LANES<T>, keys - j);
            const V top = Content<T>::load(peak + image * keys + j, size);
            const V share = (V{} + T(1)) / Content<T>::load(total + image * keys + j, size);
            for (int64_t pixel = 0; pixel < count; ++pixel)
                *reinterpret_cast<V *>(weights + pixel * row + j) =
                    exponential(Content<T>::load(from.data + pixel * from.row + j, size) - top) * share;
        }
    }

    void compute(int64_t image, Local &local, Image &made) const {
        collect(image, 0, s.heads, local, made);
        answer(image, 0, all.pixels, local, made);
    }

    // The steps of an image, in parts that can be done apart.
    int64_t parts() const { return s.heads; }
    void first(int64_t image, int64_t head, Local &local, Image &made) const {
        collect(image, head, head + 1, local, made);
    }
    int64_t lines() const { return s.lines; }
    void second(int64_t image, int64_t line, Local &local, const Image &made) const {
        answer(image, line * s.n, (line + 1) * s.n, local, made);
    }
};

}  // namespace foveate
