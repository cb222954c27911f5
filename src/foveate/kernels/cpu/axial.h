// The axial pass over the lines of many images, forward and backward, in parts that can be done apart: some of all
// rows, which go line after line and in a line head after head.
#pragma once

#include "channels.h"
#include "lanes_backward.h"
#include "normalization.h"

namespace foveate {

template <typename T> struct AxialForward {
    const Sizes s;
    const Offsets<T> r;
    const Lines<const T> q, v;
    const Lines<T> y;
    const bool add;  // to what y holds
    const bool by_line;
    const int64_t unit;  // rows that are done at a time: of a line of all heads, or of a group

    AxialForward(Lines<const T> q, Lines<const T> v, const T *window, Lines<T> y, const Sizes &s, bool add)
        : s(s),
          r(window, s.n, s.d),
          q(q),
          v(v),
          y(y),
          add(add),
          by_line(ChannelPass<T>::suits(s)),
          unit(by_line ? s.heads : LANES<T>) {}

    // What a thread works with.
    struct Local {
        LanePass<T> group;
        ChannelPass<T> line;
        explicit Local(const AxialForward &f) : group(f.r, f.s.c), line(f.r, f.s) {}
    };

    void run(int64_t first, int64_t end, Local &local) const {
        for (; first < end; first += unit) some(first, std::min(first + unit, end), v, local);
    }

    void run_all(int threads) const {
#pragma omp parallel num_threads(threads)
        {
            Local local(*this);
#pragma omp for schedule(static)
            for (int64_t first = 0; first < s.rows(); first += unit)
                some(first, std::min(first + unit, s.rows()), v, local);
        }
    }

    // Of one unit, with values that stand elsewhere.
    void some(int64_t first, int64_t end, Lines<const T> v, Local &local) const {
        if (by_line)
            line(first / s.heads, v, local.line);
        else
            group(first, end, v, local.group);
    }

    void line(int64_t index, Lines<const T> v, ChannelPass<T> &pass) const {
        using Line = typename ChannelPass<T>::Line;
        const int64_t image = index / s.lines, of = index % s.lines;
        T *to = y.at(image, 0, of, 0);
        if (add)
            pass.run(Line(q, image, of), Line(v, image, of), to, y.stride[1], y.stride[3], AddVector<T>());
        else
            pass.run(Line(q, image, of), Line(v, image, of), to, y.stride[1], y.stride[3], SetVector<T>());
    }

    void group(int64_t first, int64_t end, Lines<const T> v, LanePass<T> &pass) const {
        pass.read({q, s, first, end}, {v, s, first, end});
        pass.run();
        if (add)
            pass.write({y, s, first, end}, Add<T>());
        else
            pass.write({y, s, first, end}, Set<T>());
    }
};

template <typename T> struct AxialBackward {
    const Sizes s;
    const Offsets<T> r;
    const T *window;
    const Lines<const T> g, q, v;
    const Lines<T> gq, gv;
    const bool add;  // to what gq holds

    AxialBackward(Lines<const T> g, Lines<const T> q, Lines<const T> v, const T *window, Lines<T> gq, Lines<T> gv,
                  const Sizes &s, bool add)
        : s(s), r(window, s.n, s.d), window(window), g(g), q(q), v(v), gq(gq), gv(gv), add(add) {}

    struct Local : LaneBackward<T> {
        explicit Local(const AxialBackward &b) : LaneBackward<T>(b.r, b.window, b.s.c) {}
    };

    void run(int64_t first, int64_t end, Local &local) const {
        for (; first < end; first += LANES<T>) group(first, end, v, local);
    }

    // Of one group, with values that stand elsewhere.
    void group(int64_t first, int64_t end, Lines<const T> v, Local &local) const {
        local.read({q, s, first, end}, {v, s, first, end}, {g, s, first, end});
        local.run();
        if (add)
            local.write({gq, s, first, end}, {gv, s, first, end}, Add<T>());
        else
            local.write({gq, s, first, end}, {gv, s, first, end}, Set<T>());
    }

    // All of it, group by group.
    void run_all(T *g_window, int threads) const {
        shared((s.rows() + LANES<T> - 1) / LANES<T>, g_window, threads, [] { return 0; },
               [&](int64_t, int64_t first, int64_t end, Local &local, int) {
                   run(first * LANES<T>, std::min(end * LANES<T>, s.rows()), local);
               });
    }

    // All of it in shares of `count` things: work(share, first, end, local, …) does some of them. The embeddings'
    // gradient is summed in each share, and the sums are added in the order of the shares: the same with any number of
    // threads.
    template <typename Make, typename Work>
    void shared(int64_t count, T *g_window, int threads, Make make, Work work) const {
        const int64_t shares = std::min(count, SHARES), table = r.span * s.d;
        Buffer<T> partial(shares * table, false);
#pragma omp parallel num_threads(threads)
        {
            Local local(*this);
            auto others = make();
#pragma omp for schedule(static)
            for (int64_t share = 0; share < shares; ++share) {
                local.g_offsets.clear();
                work(share, count * share / shares, count * (share + 1) / shares, local, others);
                local.collect(partial.data + share * table);
            }
        }
        std::copy_n(partial.data, table, g_window);
        for (int64_t share = 1; share < shares; ++share)
            for (int64_t i = 0; i < table; ++i) g_window[i] += partial.data[share * table + i];
    }
};

}  // namespace foveate
