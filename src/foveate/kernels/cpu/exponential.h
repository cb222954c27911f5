// Exponentials in vectors.
#pragma once

#include <cmath>

#include "products.h"

namespace foveate {

// e^x within 2 units in the last place, NaN included; below −87, where it is under 1.6e−38, it is 0.
inline Vector<float, WIDE>::type exponential(const Vector<float, WIDE>::type &x) {
    using V = Vector<float, WIDE>::type;
    typedef int32_t Integers __attribute__((vector_size(WIDE)));
    V t = x < -87.0f ? V{} - 87.0f : x;
    const V power = (t * 1.44269504f + 12582912.0f) - 12582912.0f;  // x / log 2, rounded to an integer
    t = (t - power * 0.693145752f) - power * 1.42860677e-6f;        // |t| ≤ log(2) / 2
    V p = t * 1.98756915e-4f + 1.39819995e-3f;
    p = p * t + 8.33345175e-3f;
    p = p * t + 4.16657962e-2f;
    p = p * t + 1.66666657e-1f;
    p = p * t + 0.5f;
    p = p * t * t + t + 1.0f;
    const Integers exponent = (__builtin_convertvector(power, Integers) + 127) << 23;
    const V result = p * reinterpret_cast<const V &>(exponent);
    return x < -87.0f ? V{} : result;
}

inline Vector<double, WIDE>::type exponential(const Vector<double, WIDE>::type &x) {
    Vector<double, WIDE>::type result;
    for (int64_t i = 0; i < Vector<double, WIDE>::lanes; ++i) result[i] = std::exp(x[i]);
    return result;
}

}  // namespace foveate
