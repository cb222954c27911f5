// All of GSA that follows the projection, at inference, on a CPU.
//
//     hidden = norm(column_pass(v))                  with the statistics of the training
//     y = pool(q context + row_pass(hidden))         context = ρ(kᵀ) v, the softmax over all pixels
//
// An image at a time, so that what one step writes the next one finds in the caches; images that do not go around
// evenly are shared by all threads. No sum depends on how the work is shared: results are the same with any number of
// threads, and those of the operators for each part.

#include <memory>
#include <numeric>

#include "channels.h"
#include "content.h"
#include "normalization.h"

namespace foveate {
namespace {

struct Shape {
    int64_t images, heads, height, width, d, c, stride;  // d channels of queries and keys of a head, c of values
    explicit Shape(const int64_t *s)
        : images(s[0]), heads(s[1]), height(s[2]), width(s[3]), d(s[4]), c(s[5]), stride(s[6]) {}
    int64_t pixels() const { return height * width; }
    int64_t values() const { return heads * c; }
    int64_t channels() const { return 2 * heads * d + values(); }  // of the projection: queries, keys, values
    int64_t pooled(int64_t side) const { return (side + stride - 1) / stride; }
    Sizes rows(int64_t lines) const { return {1, heads, lines, width, d, c}; }  // of one image
    Sizes columns() const { return {1, heads, width, height, d, c}; }
};

// The strides of a map in channels_last, as rows and as columns of one image.
struct Strides {
    int64_t rows[4], columns[4];
    Strides(int64_t channels, int64_t head, int64_t width)
        : rows{0, head, width * channels, channels}, columns{0, head, channels, width * channels} {}
};

// What becomes of results of the column pass.
template <typename T> struct Normalise {
    const T *scale[LANES<T>], *shift[LANES<T>];
    Normalise(const Affine<T> &all, const Shape &s, int64_t first) {
        for (int64_t lane = 0; lane < LANES<T>; ++lane) {
            scale[lane] = all.scale.data + (first + lane) % s.heads * s.c;
            shift[lane] = all.shift.data + (first + lane) % s.heads * s.c;
        }
    }
    void operator()(int64_t lane, int64_t entry, T *to, const Narrow<T> &x) const {
        *reinterpret_cast<Narrow<T> *>(to) = x * *reinterpret_cast<const Narrow<T> *>(scale[lane] + entry) +
                                             *reinterpret_cast<const Narrow<T> *>(shift[lane] + entry);
    }
    void operator()(int64_t lane, int64_t entry, T *to, T x) const {
        *to = x * scale[lane][entry] + shift[lane][entry];
    }
};

template <typename T> struct NormaliseVector {
    const Affine<T> &all;
    template <int64_t bytes> void put(int64_t channel, T *to, const VectorOf<T, bytes> &x) const {
        using V = VectorOf<T, bytes>;
        *reinterpret_cast<V *>(to) = x * *reinterpret_cast<const V *>(all.scale.data + channel) +
                                     *reinterpret_cast<const V *>(all.shift.data + channel);
    }
};

template <typename T> struct GlobalSelf {
    const Shape s;
    const T *projection;  // (images, height, width, channels)
    T *out;               // (images, height / stride, width / stride, values), rounded up
    const Offsets<T> down, along;
    const Affine<T> &norm;
    const Content<T> content;
    const Strides queries, values, results;  // of queries and keys; of values; of maps of values alone
    const bool by_column, by_row;            // whether a pass takes a line of all heads at a time, or a group of rows
    const int64_t band;                      // lines that are finished together: whole groups of rows, whole windows

    GlobalSelf(const Shape &s, const T *projection, const T *down, const T *along, const Affine<T> &norm, T *out)
        : s(s),
          projection(projection),
          out(out),
          down(down, s.height, s.d),
          along(along, s.width, s.d),
          norm(norm),
          content(s.rows(s.height)),
          queries(s.channels(), s.d, s.width),
          values(s.channels(), s.c, s.width),
          results(s.values(), s.c, s.width),
          by_column(ChannelPass<T>::suits(s.columns())),
          by_row(ChannelPass<T>::suits(s.rows(1))),
          band(std::lcm(by_row ? 1 : LANES<T> / std::gcd(LANES<T>, s.heads), s.stride)) {}

    int64_t columns() const { return by_column ? s.width : (s.width * s.heads + LANES<T> - 1) / LANES<T>; }

    // What a thread works with.
    struct Local {
        LanePass<T> down, along;
        ChannelPass<T> columns, rows;
        typename Content<T>::Local content;
        Buffer<T> band;
        explicit Local(const GlobalSelf &all)
            : down(all.down, all.s.c),
              along(all.along, all.s.c),
              columns(all.down, all.s.columns()),
              rows(all.along, all.s.rows(1)),
              content(all.content),
              band(all.s.stride == 1 ? 0 : std::min(all.band, all.s.height) * all.s.width * all.s.values(), false) {}
    };

    // What the steps of an image leave for the next ones.
    struct Image {
        Buffer<T> context, peak, total, hidden;  // (key channels × c); … ; (height, width, values)
        explicit Image(const GlobalSelf &all)
            : context(all.content.keys * all.content.c, false),
              peak(all.content.keys, false),
              total(all.content.keys, false),
              hidden(all.s.pixels() * all.s.values(), false) {}
    };

    const T *query(int64_t image, int64_t line) const {
        return projection + (image * s.height + line) * s.width * s.channels();
    }
    const T *key(int64_t image) const { return query(image, 0) + s.heads * s.d; }
    const T *value(int64_t image) const { return query(image, 0) + 2 * s.heads * s.d; }

    void attend(int64_t image, int64_t part, int64_t end, Local &local, Image &made) const {
        content.attend({{key(image), queries.rows}, 0, content.s}, {{value(image), values.rows}, 0, content.s}, part,
                       end, local.content, made.context.data, made.peak.data, made.total.data);
    }

    using Line = typename ChannelPass<T>::Line;

    // A column, or a group of rows, of the column pass.
    void column(int64_t image, int64_t index, Local &local, Image &made) const {
        if (by_column) {
            local.columns.run(Line({query(image, 0), queries.columns}, 0, index),
                              Line({value(image), values.columns}, 0, index), made.hidden.data + index * s.values(),
                              s.c, results.columns[3], NormaliseVector<T>{norm});
            return;
        }
        const Sizes columns = s.columns();
        const int64_t first = index * LANES<T>;
        local.down.read({{query(image, 0), queries.columns}, columns, first},
                        {{value(image), values.columns}, columns, first});
        local.down.run();
        local.down.write({{made.hidden.data, results.columns}, columns, first}, Normalise<T>(norm, s, first));
    }

    // The result of lines first, first + 1, … of the map.
    void finish(int64_t image, int64_t first, Local &local, const Image &made) const {
        const int64_t count = std::min(band, s.height - first), line = s.width * s.values();
        const Sizes rows = s.rows(count);
        const Lines<const T> q{query(image, first), queries.rows},
            hidden{made.hidden.data + first * line, results.rows};
        const Lines<T> y{s.stride == 1 ? out + (image * s.height + first) * line : local.band.data, results.rows};
        content.answer({q, 0, rows}, made.context.data, 0, count * s.width, local.content, {y, 0, rows});
        for (int64_t i = 0; by_row && i < count; ++i)
            local.rows.run(Line(q, 0, i), Line(hidden, 0, i), y.data + i * line, s.c, s.values(), AddVector<T>());
        for (int64_t group = 0; !by_row && group < count * s.heads; group += LANES<T>) {
            local.along.read({q, rows, group}, {hidden, rows, group});
            local.along.run();
            local.along.write({y, rows, group}, Add<T>());
        }
        if (s.stride > 1)
            for (int64_t i = 0; i < count; i += s.stride)
                pool(y.data + i * line, std::min(s.stride, count - i),
                     out + (image * s.pooled(s.height) + (first + i) / s.stride) * s.pooled(s.width) * s.values());
    }

    // A line of means of windows, `height` lines of them.
    void pool(const T *from, int64_t height, T *to) const {
        const int64_t c = s.values();
        for (int64_t x = 0; x < s.width; x += s.stride, to += c) {
            const int64_t width = std::min(s.stride, s.width - x);
            std::fill_n(to, c, T(0));
            for (int64_t pixel = 0; pixel < height * width; ++pixel) {
                const T *source = from + (pixel / width * s.width + x + pixel % width) * c;
                for (int64_t i = 0; i < c; ++i) to[i] += source[i];
            }
            for (int64_t i = 0; i < c; ++i) to[i] /= T(height * width);
        }
    }

    void compute(int64_t image, Local &local, Image &made) const {
        attend(image, 0, content.parts, local, made);
        for (int64_t index = 0; index < columns(); ++index) column(image, index, local, made);
        for (int64_t line = 0; line < s.height; line += band) finish(image, line, local, made);
    }

    // A thread's part of an image.
    void share(int64_t image, Local &local, Image &made) const {
#pragma omp for schedule(static) nowait
        for (int64_t part = 0; part < content.parts; ++part) attend(image, part, part + 1, local, made);
#pragma omp for schedule(static)
        for (int64_t index = 0; index < columns(); ++index) column(image, index, local, made);
#pragma omp for schedule(static)
        for (int64_t line = 0; line < s.height; line += band) finish(image, line, local, made);
    }

    void run(int threads) const {
        const int64_t whole = s.images / threads * threads;  // as many for each thread
        std::unique_ptr<Image> shared(whole < s.images ? new Image(*this) : nullptr);
#pragma omp parallel num_threads(threads)
        {
            Local local(*this);
            if (whole) {
                Image own(*this);
#pragma omp for schedule(static) nowait
                for (int64_t image = 0; image < whole; ++image) compute(image, local, own);
            }
            for (int64_t image = whole; image < s.images; ++image) share(image, local, *shared);
        }
    }
};

}  // namespace
}  // namespace foveate

#define FOVEATE_GLOBAL_SELF(T, name)                                                                      \
    extern "C" void global_self_##name(const T *projection, const T *down, const T *along, const T *mean, \
                                       const T *variance, const T *weight, const T *bias, T *out,         \
                                       const int64_t *sizes, double epsilon, int threads) {               \
        const foveate::Shape s(sizes);                                                                    \
        const foveate::Affine<T> norm(s.values(), mean, variance, weight, bias, epsilon);                 \
        foveate::GlobalSelf<T>(s, projection, down, along, norm, out).run(threads);                       \
    }

FOVEATE_GLOBAL_SELF(float, float32)
FOVEATE_GLOBAL_SELF(double, float64)
