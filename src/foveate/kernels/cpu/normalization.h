// Batch normalization of maps whose pixels lie one after the other, forward and backward.
//
//     y = γ (x − mean) / √(variance + ε) + β          mean and variance of each channel over all pixels, or given
#pragma once

#include <cmath>
#include <vector>

#include "lanes.h"

namespace foveate {

constexpr int64_t SHARES = 32;  // in which sums are taken, and then added in their order: the same with any threads

template <typename T> inline Narrow<T> load_narrow(const T *from) { return *reinterpret_cast<const Narrow<T> *>(from); }

// The normalization with given statistics, as one multiplication and addition.
template <typename T> struct Affine {
    Buffer<T> scale, shift;
    Affine(int64_t channels, const T *mean, const T *variance, const T *weight, const T *bias, double epsilon)
        : scale(channels), shift(channels) {
        for (int64_t i = 0; i < channels; ++i) {
            scale.data[i] = (weight ? weight[i] : T(1)) * (T(1) / std::sqrt(variance[i] + T(epsilon)));
            shift.data[i] = (bias ? bias[i] : T(0)) - mean[i] * scale.data[i];
        }
    }
};

// What it makes of some lines at a time.
template <typename T> struct NormalizedLines {
    const Affine<T> &norm;
    const T *x;
    const int64_t channels, line, stride[4];
    Buffer<T> copied;

    // `rows`: lines of a head that are wanted at a time, at most.
    NormalizedLines(const Affine<T> &norm, const T *x, const Sizes &s, int64_t rows)
        : norm(norm),
          x(x),
          channels(s.heads * s.c),
          line(s.n * channels),
          stride{s.lines * line, s.c, line, channels},
          copied(((rows - 1) / s.heads + 2) * line, false) {}

    // Lines first … end − 1 of all images.
    Lines<const T> read(int64_t first, int64_t end) {
        const T *from = x + first * line, *last = x + end * line;
        for (T *to = copied.data; from < last; from += channels, to += channels) {
            int64_t i = 0;
            for (; i + NARROW_LANES<T> <= channels; i += NARROW_LANES<T>)
                *reinterpret_cast<Narrow<T> *>(to + i) =
                    load_narrow(from + i) * load_narrow(norm.scale.data + i) + load_narrow(norm.shift.data + i);
            for (; i < channels; ++i) to[i] = from[i] * norm.scale.data[i] + norm.shift.data[i];
        }
        return {copied.data - first * line, stride};
    }
};

// Mean and sum of squared deviations of each channel over pixels that are added in turn: no large numbers are
// subtracted from one another.
struct Moments {
    double count = 0;
    std::vector<double> mean, squares;
    explicit Moments(int64_t channels) : mean(channels), squares(channels) {}

    template <typename T> void add(double others, const T *their_mean, const T *their_squares) {
        const double all = count + others, part = others / all;
        for (size_t i = 0; i < mean.size(); ++i) {
            const double further = their_mean[i] - mean[i];
            mean[i] += further * part;
            squares[i] += their_squares[i] + further * further * count * part;
        }
        count = all;
    }
};

// Those of a few pixels, in two steps.
template <typename T> inline void block_moments(const T *x, int64_t count, int64_t channels, T *mean, T *squares) {
    int64_t i = 0;
    for (; i + NARROW_LANES<T> <= channels; i += NARROW_LANES<T>) {
        Narrow<T> sum{}, square{};
        for (int64_t pixel = 0; pixel < count; ++pixel) sum += load_narrow(x + pixel * channels + i);
        sum /= T(count);
        for (int64_t pixel = 0; pixel < count; ++pixel) {
            const Narrow<T> further = load_narrow(x + pixel * channels + i) - sum;
            square += further * further;
        }
        *reinterpret_cast<Narrow<T> *>(mean + i) = sum;
        *reinterpret_cast<Narrow<T> *>(squares + i) = square;
    }
    for (; i < channels; ++i) {
        mean[i] = squares[i] = 0;
        for (int64_t pixel = 0; pixel < count; ++pixel) mean[i] += x[pixel * channels + i];
        mean[i] /= T(count);
        for (int64_t pixel = 0; pixel < count; ++pixel) {
            const T further = x[pixel * channels + i] - mean[i];
            squares[i] += further * further;
        }
    }
}

// Mean and variance of all.
template <typename T> void statistics(const T *x, int64_t pixels, int64_t channels, T *mean, T *variance, int threads) {
    constexpr int64_t some = 16;  // pixels at a time
    std::vector<Moments> made(SHARES, Moments(channels));
#pragma omp parallel num_threads(threads)
    {
        Buffer<T> middle(channels, false), squares(channels, false);
#pragma omp for schedule(static)
        for (int64_t share = 0; share < SHARES; ++share) {
            const int64_t end = pixels * (share + 1) / SHARES;
            for (int64_t first = pixels * share / SHARES; first < end; first += some) {
                const int64_t count = std::min(some, end - first);
                block_moments(x + first * channels, count, channels, middle.data, squares.data);
                made[share].add(double(count), middle.data, squares.data);
            }
        }
    }
    Moments all(channels);
    for (const Moments &share : made)
        if (share.count) all.add(share.count, share.mean.data(), share.squares.data());
    for (int64_t i = 0; i < channels; ++i) {
        mean[i] = T(all.mean[i]);
        variance[i] = T(all.squares[i] / double(pixels));
    }
}

// For each share of the pixels and each channel: the sum of the gradients of y, and that of their products with
// x − mean.
template <typename T> struct GradientSums {
    const int64_t channels;
    Buffer<double> data;
    explicit GradientSums(int64_t channels) : channels(channels), data(SHARES * 2 * channels) {}

    // Add `size` adjacent channels of `count` pixels.
    void add(int64_t share, int64_t channel, const T *g, int64_t g_pixel, const T *x, const T *mean, int64_t count,
             int64_t size) {
        double *sum = data.data + 2 * share * channels + channel, *product = sum + channels;
        x += channel, mean += channel;
        int64_t i = 0;
        for (; i + NARROW_LANES<T> <= size; i += NARROW_LANES<T>) {
            const Narrow<T> middle = load_narrow(mean + i);
            Narrow<T> some{}, products{};
            for (int64_t pixel = 0; pixel < count; ++pixel) {
                const Narrow<T> grad = load_narrow(g + pixel * g_pixel + i);
                some += grad;
                products += grad * (load_narrow(x + pixel * channels + i) - middle);
            }
            for (int64_t lane = 0; lane < NARROW_LANES<T>; ++lane) {
                sum[i + lane] += some[lane];
                product[i + lane] += products[lane];
            }
        }
        for (; i < size; ++i)
            for (int64_t pixel = 0; pixel < count; ++pixel) {
                sum[i] += g[pixel * g_pixel + i];
                product[i] += g[pixel * g_pixel + i] * (x[pixel * channels + i] - mean[i]);
            }
    }
};

// gx = γ / √(variance + ε) (g − Σ g / N − (x − mean) Σ g (x − mean) / (N (variance + ε))); without the sums where the
// statistics were given.
template <typename T> struct NormBackward {
    const int64_t channels;
    const T *mean;
    Buffer<T> scale, lost, slope;

    // `g_weight` and `g_bias` get the gradients of γ and β.
    NormBackward(const GradientSums<T> &sums, int64_t pixels, bool of_batch, const T *mean, const T *variance,
                 const T *weight, double epsilon, T *g_weight, T *g_bias)
        : channels(sums.channels), mean(mean), scale(channels), lost(channels), slope(channels) {
        for (int64_t i = 0; i < channels; ++i) {
            double sum = 0, product = 0;
            for (int64_t share = 0; share < SHARES; ++share) {
                sum += sums.data.data[2 * share * channels + i];
                product += sums.data.data[(2 * share + 1) * channels + i];
            }
            const double inverse = 1 / std::sqrt(double(variance[i]) + epsilon);
            g_weight[i] = T(product * inverse);
            g_bias[i] = T(sum);
            scale.data[i] = T((weight ? weight[i] : T(1)) * inverse);
            if (!of_batch) continue;
            lost.data[i] = T(sum / double(pixels));
            slope.data[i] = T(product * inverse * inverse / double(pixels));
        }
    }

    // The gradients of x in place of those of y.
    void run(const T *x, T *g, int64_t g_pixel, int64_t count) const {
        for (; count > 0; --count, x += channels, g += g_pixel) {
            int64_t i = 0;
            for (; i + NARROW_LANES<T> <= channels; i += NARROW_LANES<T>)
                *reinterpret_cast<Narrow<T> *>(g + i) =
                    load_narrow(scale.data + i) *
                    (load_narrow(g + i) - load_narrow(lost.data + i) -
                     (load_narrow(x + i) - load_narrow(mean + i)) * load_narrow(slope.data + i));
            for (; i < channels; ++i) g[i] = scale.data[i] * (g[i] - lost.data[i] - (x[i] - mean[i]) * slope.data[i]);
        }
    }
};

}  // namespace foveate
