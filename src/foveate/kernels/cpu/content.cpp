// The content attention of GSA on a CPU as an operator of its own, forward and backward.

#include "content.h"

#include "lanes.h"

namespace foveate {
namespace {

template <typename T>
void content_forward(Lines<const T> q, Lines<const T> k, Lines<const T> v, Lines<T> y, T *context, T *peak, T *total,
                     const Sizes s, int threads) {
    const Content<T> content(s);
    Buffer<T> padded_context(s.images * content.keys * content.c, false);
    auto attend = [&](int64_t image, int64_t part, int64_t end, typename Content<T>::Local &local) {
        T *made = padded_context.data + image * content.keys * content.c;
        content.attend({k, image, s}, {v, image, s}, part, end, local, made, peak + image * content.keys,
                       total + image * content.keys);
        for (int64_t j = part * LANES<T>; j < std::min(content.keys, end * LANES<T>); ++j)
            std::copy_n(made + j * content.c, s.c, context + (image * content.keys + j) * s.c);
    };
    auto answer = [&](int64_t image, int64_t first, int64_t end, typename Content<T>::Local &local) {
        content.answer({q, image, s}, padded_context.data + image * content.keys * content.c, first, end, local,
                       {y, image, s});
    };
#pragma omp parallel num_threads(threads)
    {
        typename Content<T>::Local local(content);
        if (s.images >= threads) {
#pragma omp for schedule(static)
            for (int64_t image = 0; image < s.images; ++image) {
                attend(image, 0, content.parts, local);
                answer(image, 0, content.pixels, local);
            }
        } else {
#pragma omp for schedule(static) collapse(2)
            for (int64_t image = 0; image < s.images; ++image)
                for (int64_t part = 0; part < content.parts; ++part) attend(image, part, part + 1, local);
#pragma omp for schedule(static) collapse(2)
            for (int64_t image = 0; image < s.images; ++image)
                for (int64_t line = 0; line < s.lines; ++line) answer(image, line * s.n, (line + 1) * s.n, local);
        }
    }
}

//     g_context = Σ_pixels qᵀ g
//     gq = g contextᵀ      gv = w g_context      gk = w ∘ (v g_contextᵀ − Σ_c context ∘ g_context)
template <typename T> struct ContentBackward {
    const Content<T> all;
    const Sizes s;
    const int64_t c, d, keys, row;
    Lines<const T> g, q, k, v;
    Lines<T> gq, gk, gv;
    const T *context, *peak, *total;
    // For each image: g_context (key channels × c), its transpose and that of the context (for each head c × d), and
    // what each key channel loses.
    Buffer<T> g_context, g_turned, turned, means;

    ContentBackward(Lines<const T> g, Lines<const T> q, Lines<const T> k, Lines<const T> v, const T *context,
                    const T *peak, const T *total, Lines<T> gq, Lines<T> gk, Lines<T> gv, const Sizes &s)
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
          g_context(s.images * keys * c),
          g_turned(s.images * s.heads * s.c * d),
          turned(s.images * s.heads * s.c * d),
          means(s.images * s.heads * d) {}

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

    // g_context of some heads of an image, and what follows from it.
    void collect(int64_t image, int64_t first, int64_t end, Local &local) const {
        const Pixels<const T> from_q{q, image, s}, from_g{g, image, s};
        all.each(0, all.pixels, [&](int64_t from, int64_t count) {
            const Block<const T> queries = local.queries.read(from_q, from, count);
            const Block<const T> grads = local.grads.read(from_g, from, count);
            for (int64_t head = first; head < end; ++head)
                product<T>(s.d, c, count, queries.of(head).turned(), grads.of(head),
                           {g_context.data + (image * keys + head * s.d) * c, c}, true);
        });
        for (int64_t head = first; head < end; ++head) {
            const int64_t index = image * s.heads + head;
            const T *forward = context + index * s.d * s.c, *backward = g_context.data + index * s.d * c;
            turn({forward, s.c}, {turned.data + index * s.c * d, d});
            turn({backward, c}, {g_turned.data + index * s.c * d, d});
            const Matrix<const T> ahead{turned.data + index * s.c * d, d}, back{g_turned.data + index * s.c * d, d};
            for (int64_t j = 0; j < s.c; ++j)
                for (int64_t i = 0; i < s.d; ++i)
                    means.data[index * d + i] += ahead.data[j * d + i] * back.data[j * d + i];
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
    void answer(int64_t image, int64_t first, int64_t end, Local &local) const {
        const Pixels<T> to_q{gq, image, s}, to_k{gk, image, s}, to_v{gv, image, s};
        all.each(first, end, [&](int64_t from, int64_t count) {
            const Block<const T> grads = local.grads.read({g, image, s}, from, count);
            const Block<const T> values = local.values.read({v, image, s}, from, count);
            const Block<T> g_query = local.g_query.target(to_q, from), g_key = local.g_key.target(to_k, from);
            const Block<T> g_value = local.out.target(to_v, from);
            weigh(local.keys.read({k, image, s}, from, count), image, count, local.weights.data);
            for (int64_t head = 0; head < s.heads; ++head) {
                const int64_t index = image * s.heads + head;
                product<T>(count, d, s.c, grads.of(head), {turned.data + index * s.c * d, d}, g_query.of(head), false);
                product<T>(count, d, s.c, values.of(head), {g_turned.data + index * s.c * d, d}, g_key.of(head), false);
                product<T>(count, c, s.d, {local.weights.data + head * s.d, row}, {g_context.data + index * s.d * c, c},
                           g_value.of(head), false);
                soften(count, g_key.of(head), local.weights.data + head * s.d, means.data + index * d);
            }
            local.g_query.flush(to_q, from, count);
            local.g_key.flush(to_k, from, count);
            local.out.flush(to_v, from, count);
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

    void run(int threads) const {
#pragma omp parallel num_threads(threads)
        {
            Local local(*this);
            if (s.images >= threads) {
#pragma omp for schedule(static)
                for (int64_t image = 0; image < s.images; ++image) {
                    collect(image, 0, s.heads, local);
                    answer(image, 0, all.pixels, local);
                }
            } else {
#pragma omp for schedule(static) collapse(2)
                for (int64_t image = 0; image < s.images; ++image)
                    for (int64_t head = 0; head < s.heads; ++head) collect(image, head, head + 1, local);
#pragma omp for schedule(static) collapse(2)
                for (int64_t image = 0; image < s.images; ++image)
                    for (int64_t line = 0; line < s.lines; ++line) answer(image, line * s.n, (line + 1) * s.n, local);
            }
        }
    }
};

}  // namespace
}  // namespace foveate

#define FOVEATE_CONTENT(T, name)                                                                                      \
    extern "C" void content_forward_##name(const T *q, const int64_t *q_stride, const T *k, const int64_t *k_stride,  \
                                           const T *v, const int64_t *v_stride, T *y, const int64_t *y_stride,        \
                                           T *context, T *peak, T *total, const int64_t *sizes, int threads) {        \
        foveate::content_forward<T>({q, q_stride}, {k, k_stride}, {v, v_stride}, {y, y_stride}, context, peak, total, \
                                    foveate::Sizes(sizes), threads);                                                  \
    }                                                                                                                 \
    extern "C" void content_backward_##name(const T *g, const int64_t *g_stride, const T *q, const int64_t *q_stride, \
                                            const T *k, const int64_t *k_stride, const T *v, const int64_t *v_stride, \
                                            const T *context, const T *peak, const T *total, T *gq,                   \
                                            const int64_t *gq_stride, T *gk, const int64_t *gk_stride, T *gv,         \
                                            const int64_t *gv_stride, const int64_t *sizes, int threads) {            \
        foveate::ContentBackward<T>({g, g_stride}, {q, q_stride}, {k, k_stride}, {v, v_stride}, context, peak, total, \
                                    {gq, gq_stride}, {gk, gk_stride}, {gv, gv_stride}, foveate::Sizes(sizes))         \
            .run(threads);                                                                                            \
    }

FOVEATE_CONTENT(float, float32)
FOVEATE_CONTENT(double, float64)
