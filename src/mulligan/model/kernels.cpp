// What lies between the matrix products of a decoder on the processor, in float32: norms, rotary embeddings, activations, attention;
// for the learner with their gradients. Compiled once per machine by kernels.py; ops.py has the same in plain torch. Every function
// computes a row (a token, a head) by itself and in one order, so that its result depends neither on what else is in the batch nor on
// the number of threads; sums over tokens (gradients) are made in one order as well.
//
// Legend: T tokens of the pass, N of them to be attended, H query heads, K key/value heads, D and E sizes of keys and values,
// S cache rows, C their capacity in tokens. All tensors are contiguous.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

// By value: std::max and std::min hand out references, for which the compiler gives up on many numbers at once (ten times as slow and more).
inline float larger(float a, float b) { return a < b ? b : a; }
inline float smaller(float a, float b) { return b < a ? b : a; }

// e^x to 2 units in the last place, for a loop to compute on many numbers at once (the C library's takes one at a time).
inline float exponential(float x) {
    x = smaller(larger(x, -87.0f), 88.0f);
    const float shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: rounds to a whole number
    const float whole = shifted - 12582912.0f;
    const float rest = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    float sum = 1.9875691500e-4f;
    sum = sum * rest + 1.3981999507e-3f;
    sum = sum * rest + 8.3334519073e-3f;
    sum = sum * rest + 4.1665795894e-2f;
    sum = sum * rest + 1.6666665459e-1f;
    sum = sum * rest + 5.0000001201e-1f;
    sum = sum * rest * rest + rest + 1.0f;
    const int32_t power = (static_cast<int32_t>(whole) + 127) << 23;
    float scale;
    std::memcpy(&scale, &power, sizeof scale);
    return sum * scale;
}

constexpr int64_t BLOCK = 16;  // tokens of the cache that all query heads of a key/value head look at before the next ones are fetched (measured: 64 is a fifth slower)

#if defined(__AVX512F__) && defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define HAS_LANES
typedef float Lanes __attribute__((vector_size(64)));  // sixteen numbers, computed on at once

inline Lanes load(const float* x) {
    Lanes lanes;
    std::memcpy(&lanes, x, sizeof lanes);
    return lanes;
}

// The sums that groups of neighbouring lanes of a and of b will have, kept in groups half as large: a's, then b's.
#define SHUFFLE __builtin_shufflevector
inline Lanes fold_16(Lanes a, Lanes b) { return SHUFFLE(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) + SHUFFLE(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31); }
inline Lanes fold_8(Lanes a, Lanes b) { return SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) + SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31); }
inline Lanes fold_4(Lanes a, Lanes b) { return SHUFFLE(a, b, 0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29) + SHUFFLE(a, b, 2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31); }
inline Lanes fold_2(Lanes a, Lanes b) { return SHUFFLE(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) + SHUFFLE(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31); }
#undef SHUFFLE

// scores[i] = <query, keys[i]> for up to BLOCK keys: their lanes are added up together, in a third of the steps that one after the other takes.
template <int SIZE>
void dots_of_block(const float* query, const float* keys, float* scores, int64_t count) {
    constexpr int PARTS = SIZE / 16;
    Lanes parts[PARTS ? PARTS : 1];
    for (int d = 0; d < PARTS; ++d) parts[d] = load(query + 16 * d);
    const auto product = [&](int64_t i) {
        Lanes sum{};
        if (i < count) {
            for (int d = 0; d < PARTS; ++d) sum += parts[d] * load(keys + i * SIZE + 16 * d);
        }
        return sum;
    };
    Lanes eights[8], fours[4];
    for (int i = 0; i < 8; ++i) eights[i] = fold_16(product(2 * i), product(2 * i + 1));
    for (int i = 0; i < 4; ++i) fours[i] = fold_8(eights[2 * i], eights[2 * i + 1]);
    const Lanes sums = fold_2(fold_4(fours[0], fours[1]), fold_4(fours[2], fours[3]));
    std::memcpy(scores, &sums, sizeof(float) * count);
}
#endif
#endif

// scores[i] = <query, keys[i]> for all i, at most BLOCK. SIZE is D where it is known in advance, or 0.
template <int SIZE>
void dots(const float* query, const float* keys, float* scores, int64_t count, int64_t size) {
#ifdef HAS_LANES
    if (SIZE != 0 && SIZE % 16 == 0) return dots_of_block<SIZE>(query, keys, scores, count);
#endif
    const int64_t D = SIZE ? SIZE : size;
    for (int64_t i = 0; i < count; ++i) {
        const float* key = keys + i * D;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t d = 0; d < D; ++d) sum += query[d] * key[d];
        scores[i] = sum;
    }
}

// out += the sum of weights[i] * values[i].
template <int SIZE>
void add_weighted(const float* weights, const float* values, float* out, int64_t count, int64_t size) {
    if (SIZE == 0) {
        for (int64_t i = 0; i < count; ++i) {
#pragma omp simd
            for (int64_t e = 0; e < size; ++e) out[e] += weights[i] * values[i * size + e];
        }
        return;
    }
    float sum[SIZE ? SIZE : 1];  // in registers
    std::copy(out, out + SIZE, sum);
    for (int64_t i = 0; i < count; ++i) {
#pragma omp simd
        for (int e = 0; e < SIZE; ++e) sum[e] += weights[i] * values[i * SIZE + e];
    }
    std::copy(sum, sum + SIZE, out);
}

inline float largest(const float* numbers, int64_t count) {
    float most = -INFINITY;
#pragma omp simd reduction(max : most)
    for (int64_t i = 0; i < count; ++i) most = larger(most, numbers[i]);
    return most;
}

// Scores to weights that add up to 1; returns the logarithm of what they were divided by.
float soften(float* scores, int64_t count, float scale, float softcap) {
    if (softcap > 0) {
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) {
            scores[i] = softcap - 2 * softcap / (exponential(2 * scale / softcap * scores[i]) + 1);  // softcap * tanh(scale * score / softcap)
        }
        scale = 1;
    }
    const float highest = largest(scores, count);
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; ++i) sum += scores[i] = exponential(scale * (scores[i] - highest));
    const float inverse = 1 / sum;
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) scores[i] *= inverse;
    return scale * highest + std::log(sum);
}

template <int SIZE>
void attend_head(const float* query, const float* keys, const float* values, float* out, float* scores, int64_t count, int64_t heads,
                 int64_t D, int64_t E, float scale, float softcap) {
    for (int64_t i = 0; i < count; i += BLOCK) {
        for (int64_t h = 0; h < heads; ++h) dots<SIZE>(query + h * D, keys + i * D, scores + h * count + i, std::min(BLOCK, count - i), D);
    }
    for (int64_t h = 0; h < heads; ++h) soften(scores + h * count, count, scale, softcap);
    std::fill(out, out + heads * E, 0.0f);
    for (int64_t i = 0; i < count; i += BLOCK) {
        for (int64_t h = 0; h < heads; ++h) add_weighted<SIZE>(scores + h * count + i, values + i * E, out + h * E, std::min(BLOCK, count - i), E);
    }
}

// Each pair of a head times its 2 x 2 matrix, or, for gradients, times the transpose of it.
template <bool TRANSPOSED>
void turn(float* x, const float* cosines, const float* sines, int64_t T, int64_t H, int64_t D, int threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t t = 0; t < T; ++t) {
        const float *cosine = cosines + t * D, *sine = sines + t * D;
        const int64_t half = D / 2;
        for (int64_t h = 0; h < H; ++h) {
            float *first = x + (t * H + h) * D, *second = first + half;
#pragma omp simd
            for (int64_t d = 0; d < half; ++d) {
                const float a = first[d], b = second[d];
                const float down = TRANSPOSED ? -sine[d + half] : sine[d], up = TRANSPOSED ? -sine[d] : sine[d + half];
                first[d] = a * cosine[d] - b * down;
                second[d] = b * cosine[d + half] + a * up;
            }
        }
    }
}

// ------------------------------------------------------------------------- attention of whole sequences, for the learner

typedef float Vec __attribute__((vector_size(64), aligned(4)));
constexpr int64_t LANES = 16;

inline int64_t padded(int64_t n) { return (n + LANES - 1) / LANES * LANES; }

template <int M, int N>
inline void product_tile(const float* a, int64_t ai, int64_t ak, const float* b, int64_t ldb, float* c, int64_t ldc, int64_t k, bool add) {
    Vec sum[M][N];
    for (int i = 0; i < M; ++i) {
        for (int j = 0; j < N; ++j) sum[i][j] = add ? *reinterpret_cast<const Vec*>(c + i * ldc + j * LANES) : Vec{};
    }
    for (int64_t p = 0; p < k; ++p) {
        Vec row[N];
        for (int j = 0; j < N; ++j) row[j] = *reinterpret_cast<const Vec*>(b + p * ldb + j * LANES);
        for (int i = 0; i < M; ++i) {
            const float x = a[i * ai + p * ak];
            for (int j = 0; j < N; ++j) sum[i][j] += x * row[j];
        }
    }
    for (int i = 0; i < M; ++i) {
        for (int j = 0; j < N; ++j) *reinterpret_cast<Vec*>(c + i * ldc + j * LANES) = sum[i][j];
    }
}

template <int N>
inline void product_columns(const float* a, int64_t ai, int64_t ak, const float* b, int64_t ldb, float* c, int64_t ldc, int64_t m, int64_t k, bool add) {
    int64_t i = 0;
    for (; i + 8 <= m; i += 8) product_tile<8, N>(a + i * ai, ai, ak, b, ldb, c + i * ldc, ldc, k, add);
    for (; i + 4 <= m; i += 4) product_tile<4, N>(a + i * ai, ai, ak, b, ldb, c + i * ldc, ldc, k, add);
    for (; i < m; ++i) product_tile<1, N>(a + i * ai, ai, ak, b, ldb, c + i * ldc, ldc, k, add);
}

// c (m, n) = a (m, k) times b (k, n), or added to it. Element (i, p) of a is a[i * ai + p * ak]; n is a multiple of LANES.
void product(const float* a, int64_t ai, int64_t ak, const float* b, int64_t ldb, float* c, int64_t ldc, int64_t m, int64_t n, int64_t k, bool add) {
    int64_t j = 0;
    for (; j + 2 * LANES <= n; j += 2 * LANES) product_columns<2>(a, ai, ak, b + j, ldb, c + j, ldc, m, k, add);
    if (j < n) product_columns<1>(a, ai, ak, b + j, ldb, c + j, ldc, m, k, add);
}

// Rows of x (T, heads, size) at the tokens `path`, padded with zeros to `width`: to (count, width).
void take(const float* x, const int64_t* path, float* to, int64_t count, int64_t heads, int64_t head, int64_t size, int64_t width) {
    for (int64_t i = 0; i < count; ++i) {
        const float* from = x + (path[i] * heads + head) * size;
        std::copy(from, from + size, to + i * width);
        std::fill(to + i * width + size, to + (i + 1) * width, 0.0f);
    }
}

// x (count, width), of which the first `size` columns count, as columns: to (size, length).
void transpose(const float* x, float* to, int64_t count, int64_t width, int64_t size, int64_t length) {
    for (int64_t i = 0; i < count; ++i) {
        for (int64_t d = 0; d < size; ++d) to[d * length + i] = x[i * width + d];
    }
    for (int64_t d = 0; d < size; ++d) std::fill(to + d * length + count, to + (d + 1) * length, 0.0f);
}

constexpr int64_t QUERIES = 32;  // tokens whose scores are in work at a time

// The tokens of a pass by sequence. Those from `own` on stand in no sequence before; the others are its beginning, which it shares.
struct Sequence {
    const int64_t* path;
    int64_t length, own;
};

struct Heads {
    int64_t H, K, D, E;
    int64_t group() const { return H / K; }
    int64_t Dp() const { return padded(D); }
    int64_t Ep() const { return padded(E); }
};

// What one thread needs to attend one sequence with the query heads of one key/value head.
struct Workspace {
    std::vector<float> keys, values, keys_t, values_t, query, grad, scores, grad_scores, out;

    void gather(const float* key, const float* value, const Sequence& s, const Heads& n, int64_t k, bool backward) {
        const int64_t length = padded(s.length), rows = n.group() * QUERIES;
        keys.resize(s.length * n.Dp());
        values.resize(s.length * n.Ep());
        keys_t.resize(n.D * length);
        query.resize(rows * n.Dp());
        scores.resize(rows * length);
        out.resize(rows * std::max(n.Dp(), n.Ep()));
        take(key, s.path, keys.data(), s.length, n.K, k, n.D, n.Dp());
        take(value, s.path, values.data(), s.length, n.K, k, n.E, n.Ep());
        transpose(keys.data(), keys_t.data(), s.length, n.Dp(), n.D, length);
        if (backward) {
            values_t.resize(n.E * length);
            grad.resize(rows * n.Ep());
            grad_scores.resize(rows * length);
            transpose(values.data(), values_t.data(), s.length, n.Ep(), n.E, length);
        }
    }
};

void attend_sequence(Workspace& w, const float* query, float* out, float* lse, const Sequence& s, const Heads& n, int64_t k, float scale) {
    const int64_t G = n.group(), length = padded(s.length), Dp = n.Dp(), Ep = n.Ep();
    for (int64_t start = s.own; start < s.length; start += QUERIES) {
        const int64_t m = std::min(QUERIES, s.length - start), columns = padded(start + m);
        for (int64_t g = 0; g < G; ++g) take(query, s.path + start, w.query.data() + g * m * Dp, m, n.H, k * G + g, n.D, Dp);
        product(w.query.data(), Dp, 1, w.keys_t.data(), length, w.scores.data(), length, G * m, columns, n.D, false);
        for (int64_t r = 0; r < G * m; ++r) {
            float* row = w.scores.data() + r * length;
            const int64_t seen = start + r % m + 1;
            lse[s.path[start + r % m] * n.H + k * G + r / m] = soften(row, seen, scale, 0);
            std::fill(row + seen, row + columns, 0.0f);
        }
        product(w.scores.data(), length, 1, w.values.data(), Ep, w.out.data(), Ep, G * m, Ep, start + m, false);
        for (int64_t r = 0; r < G * m; ++r) {
            std::copy_n(w.out.data() + r * Ep, n.E, out + (s.path[start + r % m] * n.H + k * G + r / m) * n.E);
        }
    }
}

// Gradients of the queries, and, added to to_keys (length, Dp) and to_values (length, Ep), of the keys and values of this sequence.
void attend_sequence_backward(Workspace& w, const float* grad, const float* query, const float* out, const float* lse, float* to_query,
                              float* to_keys, float* to_values, const Sequence& s, const Heads& n, int64_t k, float scale) {
    const int64_t G = n.group(), length = padded(s.length), Dp = n.Dp(), Ep = n.Ep();
    for (int64_t start = s.own; start < s.length; start += QUERIES) {
        const int64_t m = std::min(QUERIES, s.length - start), columns = padded(start + m);
        for (int64_t g = 0; g < G; ++g) {
            take(query, s.path + start, w.query.data() + g * m * Dp, m, n.H, k * G + g, n.D, Dp);
            take(grad, s.path + start, w.grad.data() + g * m * Ep, m, n.H, k * G + g, n.E, Ep);
        }
        product(w.query.data(), Dp, 1, w.keys_t.data(), length, w.scores.data(), length, G * m, columns, n.D, false);
        product(w.grad.data(), Ep, 1, w.values_t.data(), length, w.grad_scores.data(), length, G * m, columns, n.E, false);
        for (int64_t r = 0; r < G * m; ++r) {
            float *weight = w.scores.data() + r * length, *to = w.grad_scores.data() + r * length;
            const int64_t seen = start + r % m + 1, head = s.path[start + r % m] * n.H + k * G + r / m;
            const float *o = out + head * n.E, *g = w.grad.data() + r * Ep, total = lse[head];
            float inner = 0;
#pragma omp simd reduction(+ : inner)
            for (int64_t e = 0; e < n.E; ++e) inner += o[e] * g[e];
#pragma omp simd
            for (int64_t i = 0; i < seen; ++i) {
                weight[i] = exponential(scale * weight[i] - total);
                to[i] = scale * weight[i] * (to[i] - inner);
            }
            std::fill(weight + seen, weight + columns, 0.0f);
            std::fill(to + seen, to + columns, 0.0f);
        }
        product(w.scores.data(), 1, length, w.grad.data(), Ep, to_values, Ep, start + m, Ep, G * m, true);
        product(w.grad_scores.data(), 1, length, w.query.data(), Dp, to_keys, Dp, start + m, Dp, G * m, true);
        product(w.grad_scores.data(), length, 1, w.keys.data(), Dp, w.out.data(), Dp, G * m, Dp, start + m, false);
        for (int64_t r = 0; r < G * m; ++r) {
            std::copy_n(w.out.data() + r * Dp, n.D, to_query + (s.path[start + r % m] * n.H + k * G + r / m) * n.D);
        }
    }
}

// to (T, K, size) = the sums over all places where a token stands of from (K, P, width): sequence after sequence, by columns in parallel.
void add_up(const float* from, const int64_t* path, float* to, int64_t T, int64_t P, int64_t K, int64_t size, int64_t width, int threads) {
    const int64_t blocks = width / LANES;
#pragma omp parallel for num_threads(threads)
    for (int64_t item = 0; item < K * blocks; ++item) {
        const int64_t k = item / blocks, first = item % blocks * LANES, count = std::min(LANES, size - first);
        for (int64_t t = 0; t < T; ++t) std::fill_n(to + (t * K + k) * size + first, count, 0.0f);
        for (int64_t p = 0; p < P; ++p) {
            const float* row = from + (k * P + p) * width + first;
            float* sum = to + (path[p] * K + k) * size + first;
            for (int64_t d = 0; d < count; ++d) sum[d] += row[d];
        }
    }
}

constexpr int64_t ROWS = 64;  // rows of a gradient that are added up before it is added to others: as many whatever the number of threads

}  // namespace

extern "C" {

// out (T, width) = x / sqrt(mean of x^2 + eps) * weight.
void rms_norm(const float* x, const float* weight, float* out, int64_t T, int64_t width, float eps, int threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t t = 0; t < T; ++t) {
        const float* row = x + t * width;
        float* to = out + t * width;
        double sum = 0;  // an error in the factor of a row would be the same in all of its numbers, and add up
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < width; ++i) sum += static_cast<double>(row[i]) * row[i];
        const float factor = static_cast<float>(1 / std::sqrt(sum / width + eps));
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) to[i] = weight[i] * (row[i] * factor);
    }
}

// Gradients of rms_norm: to_x (T, width), with `beside` (T, width; or null) added to it, and to_weight (ceil(T / 64), width), to be added up (or null).
void rms_norm_backward(const float* grad, const float* x, const float* weight, const float* beside, float* to_x, float* to_weight,
                       int64_t T, int64_t width, float eps, int threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t block = 0; block < (T + ROWS - 1) / ROWS; ++block) {
        float* sums = to_weight ? to_weight + block * width : nullptr;
        if (sums) std::fill(sums, sums + width, 0.0f);
        for (int64_t t = block * ROWS; t < std::min(T, (block + 1) * ROWS); ++t) {
            const float *row = x + t * width, *g = grad + t * width;
            float* to = to_x + t * width;
            double sum = 0, inner = 0;
#pragma omp simd reduction(+ : sum, inner)
            for (int64_t i = 0; i < width; ++i) {
                sum += static_cast<double>(row[i]) * row[i];
                inner += static_cast<double>(g[i]) * weight[i] * row[i];
            }
            const double square = sum / width + eps;
            const float factor = static_cast<float>(1 / std::sqrt(square)), pull = static_cast<float>(inner / width / square);
            if (beside) {
                const float* other = beside + t * width;
#pragma omp simd
                for (int64_t i = 0; i < width; ++i) to[i] = factor * (g[i] * weight[i] - pull * row[i]) + other[i];
            } else {
#pragma omp simd
                for (int64_t i = 0; i < width; ++i) to[i] = factor * (g[i] * weight[i] - pull * row[i]);
            }
            if (sums) {
#pragma omp simd
                for (int64_t i = 0; i < width; ++i) sums[i] += g[i] * (row[i] * factor);
            }
        }
    }
}

// out = gate * sigmoid(gate) * up, of `count` numbers each; out may be gate.
void swiglu(const float* gate, const float* up, float* out, int64_t count, int threads) {
#pragma omp parallel for simd num_threads(threads)
    for (int64_t i = 0; i < count; ++i) out[i] = gate[i] / (1 + exponential(-gate[i])) * up[i];
}

// Gradients of swiglu.
void swiglu_backward(const float* grad, const float* gate, const float* up, float* to_gate, float* to_up, int64_t count, int threads) {
#pragma omp parallel for simd num_threads(threads)
    for (int64_t i = 0; i < count; ++i) {
        const float shut = exponential(-gate[i]), open = 1 / (1 + shut), activation = gate[i] * open;
        to_up[i] = grad[i] * activation;
        to_gate[i] = grad[i] * up[i] * (open + activation * (shut * open));  // shut * open is 1 - open, with which the loop is five times as slow
    }
}

constexpr int64_t SUMMED = 256;  // weights of a row that are added up in single precision
constexpr float LEAST = -87.0f;  // e to less than this is nothing in single precision

// Of the softmax of each row of logits (C, V), times `inverse`: the logarithm of the sum of the exponentials, and the entropy, (C,) each.
// A logit of minus infinity adds nothing; what is not a number stays none.
void softmax_sums(const float* logits, float* lse, float* entropy, int64_t C, int64_t V, float inverse, int threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t c = 0; c < C; ++c) {
        const float* row = logits + c * V;
        const float top = largest(row, V) * inverse;
        double mass = 0, weighted = 0;
        for (int64_t begin = 0; begin < V; begin += SUMMED) {
            const int64_t end = std::min(begin + SUMMED, V);
            float part = 0, weighted_part = 0;
#pragma omp simd reduction(+ : part, weighted_part)
            for (int64_t i = begin; i < end; ++i) {
                const float below = row[i] * inverse - top;
                const float weight = exponential(below);
                part += weight;
                weighted_part += below < LEAST ? 0.0f : weight * below;
            }
            mass += part;
            weighted += weighted_part;
        }
        lse[c] = static_cast<float>(top + std::log(mass));
        entropy[c] = static_cast<float>(std::log(mass) - weighted / mass);
    }
}

// The gradient of the sum of lse_pull * lse + entropy_pull * entropy of softmax_sums towards the logits: (C, V).
void softmax_sums_backward(const float* logits, const float* lse, const float* entropy, const float* lse_pull, const float* entropy_pull, float* to_logits,
                           int64_t C, int64_t V, float inverse, int threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t c = 0; c < C; ++c) {
        const float *row = logits + c * V, pull = lse_pull[c] * inverse, entropy_share = entropy_pull[c] * inverse;
        float* to = to_logits + c * V;
#pragma omp simd
        for (int64_t i = 0; i < V; ++i) {
            const float logprob = row[i] * inverse - lse[c];
            const float prob = exponential(logprob) * (pull - entropy_share * (logprob + entropy[c]));  // dH/dz = -p (log p + H)
            to[i] = logprob < LEAST ? 0.0f : prob;
        }
    }
}

// For drawing from the softmax of each row of logits (R, V), times `inverse`: the highest logit, (R,), and the sums of the weights of SUMMED
// neighbours each (the most likely token weighs 1), (R, blocks). A weight of less than e to LEAST is none.
void softmax_blocks(const float* logits, float* highest, double* sums, int64_t R, int64_t V, float inverse, int threads) {
    const int64_t blocks = (V + SUMMED - 1) / SUMMED;
#pragma omp parallel for num_threads(threads)
    for (int64_t r = 0; r < R; ++r) {
        const float* row = logits + r * V;
        const float most = highest[r] = largest(row, V);
        for (int64_t block = 0; block < blocks; ++block) {
            const int64_t end = std::min((block + 1) * SUMMED, V);
            float part = 0;
#pragma omp simd reduction(+ : part)
            for (int64_t i = block * SUMMED; i < end; ++i) {
                const float below = (row[i] - most) * inverse;
                const float weight = exponential(below);
                part += below < LEAST ? 0.0f : weight;
            }
            sums[r * blocks + block] = part;
        }
    }
}

// The Hadamard transform of groups of numbers that lie width / group apart (ops.py, mix), in place.
inline void mix(float* row, int64_t width, int64_t group) {
    for (int64_t span = width / group; span < width; span *= 2) {
        for (int64_t begin = 0; begin < width; begin += 2 * span) {
            float* first = row + begin;
            float* second = first + span;
#pragma omp simd
            for (int64_t i = 0; i < span; ++i) {
                const float a = first[i], b = second[i];
                first[i] = a + b;
                second[i] = a - b;
            }
        }
    }
}

// Each row of x (T, width), mixed, as bytes around 128, and its scale (T,): the largest number of a row is 127 of its scales away from 0.
void quantize(const float* x, uint8_t* out, float* scales, int64_t T, int64_t width, int64_t group, int threads) {
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> row(width);
#pragma omp for
        for (int64_t t = 0; t < T; ++t) {
            uint8_t* to = out + t * width;
            std::copy_n(x + t * width, width, row.data());
            mix(row.data(), width, group);
            float highest = 1e-12f;
#pragma omp simd reduction(max : highest)
            for (int64_t i = 0; i < width; ++i) highest = larger(highest, std::abs(row[i]));
            const float scale = highest / 127.0f;
#pragma omp simd
            for (int64_t i = 0; i < width; ++i) to[i] = static_cast<uint8_t>(static_cast<int32_t>(row[i] / scale + 128.5f));
            scales[t] = scale;
        }
    }
}

// Turn heads (T, H, D) in place by the angles of their token, whose cosines and sines are (T, D): the halves of a head are paired.
void rotate(float* x, const float* cosines, const float* sines, int64_t T, int64_t H, int64_t D, int threads) {
    turn<false>(x, cosines, sines, T, H, D, threads);
}

// The gradient of rotate, in place.
void rotate_backward(float* grad, const float* cosines, const float* sines, int64_t T, int64_t H, int64_t D, int threads) {
    turn<true>(grad, cosines, sines, T, H, D, threads);
}

// Every token attends to its own past: query (T, H, D), key (T, K, D), value (T, K, E) -> out (T, H, E), lse (T, H), the logarithm of
// what the weights were divided by. Sequence b of B stands at the places path[starts[b]] up to path[starts[b + 1]] of the pass; those
// from its own[b]-th on stand in no sequence before it, and are attended here.
void attend_packed(const float* query, const float* key, const float* value, float* out, float* lse, const int64_t* path, const int64_t* starts,
                   const int64_t* own, int64_t B, int64_t H, int64_t K, int64_t D, int64_t E, float scale, int threads) {
    const Heads n{H, K, D, E};
#pragma omp parallel num_threads(threads)
    {
        Workspace w;
#pragma omp for schedule(dynamic, 1)
        for (int64_t item = 0; item < B * K; ++item) {
            const int64_t b = item / K, k = item % K;
            const Sequence s{path + starts[b], starts[b + 1] - starts[b], own[b]};
            if (s.own == s.length) continue;
            w.gather(key, value, s, n, k, false);
            attend_sequence(w, query, out, lse, s, n, k, scale);
        }
    }
}

// Gradients of attend_packed, from that of its result. parts (K, P, Dp + Ep) is room for the P = starts[B] places of all sequences.
void attend_packed_backward(const float* grad, const float* query, const float* key, const float* value, const float* out, const float* lse,
                            float* to_query, float* to_key, float* to_value, float* parts, const int64_t* path, const int64_t* starts,
                            const int64_t* own, int64_t T, int64_t B, int64_t H, int64_t K, int64_t D, int64_t E, float scale, int threads) {
    const Heads n{H, K, D, E};
    const int64_t P = starts[B];
    float *keys = parts, *values = parts + K * P * n.Dp();
#pragma omp parallel num_threads(threads)
    {
        Workspace w;
#pragma omp for schedule(dynamic, 1)
        for (int64_t item = 0; item < B * K; ++item) {
            const int64_t b = item / K, k = item % K;
            const Sequence s{path + starts[b], starts[b + 1] - starts[b], own[b]};
            float *to_keys = keys + (k * P + starts[b]) * n.Dp(), *to_values = values + (k * P + starts[b]) * n.Ep();
            std::fill(to_keys, to_keys + s.length * n.Dp(), 0.0f);
            std::fill(to_values, to_values + s.length * n.Ep(), 0.0f);
            if (s.own == s.length) continue;
            w.gather(key, value, s, n, k, true);
            attend_sequence_backward(w, grad, query, out, lse, to_query, to_keys, to_values, s, n, k, scale);
        }
    }
    add_up(keys, path, to_key, T, P, K, D, n.Dp(), threads);
    add_up(values, path, to_value, T, P, K, E, n.Ep(), threads);
}

// Write the new keys (T, K, D) and values (T, K, E) to the cache, (S, K, C, D) and (S, K, C, E), at row[t] and position[t]; then let
// the tokens which[n] attend to their row up to themselves, or to its last `window` tokens: query (T, H, D) -> out (T, H, E).
void attend(const float* query, const float* key, const float* value, float* keys, float* values, float* out, const int64_t* row,
            const int64_t* position, const int64_t* which, int64_t T, int64_t N, int64_t H, int64_t K, int64_t D, int64_t E, int64_t C,
            float scale, int64_t window, float softcap, int threads) {
    const int64_t heads = H / K;
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> scores;
#pragma omp for
        for (int64_t t = 0; t < T; ++t) {
            for (int64_t k = 0; k < K; ++k) {
                const int64_t at = (row[t] * K + k) * C + position[t], from = t * K + k;
                std::copy(key + from * D, key + (from + 1) * D, keys + at * D);
                std::copy(value + from * E, value + (from + 1) * E, values + at * E);
            }
        }
#pragma omp for schedule(dynamic)
        for (int64_t item = 0; item < N * K; ++item) {
            const int64_t t = which[item / K], k = item % K, end = position[t] + 1;
            const int64_t count = window > 0 ? std::min(window, end) : end, at = (row[t] * K + k) * C + end - count;
            if (static_cast<int64_t>(scores.size()) < heads * count) scores.resize(heads * count);
            const float* q = query + (t * H + k * heads) * D;
            float* o = out + (t * H + k * heads) * E;
            const auto head = D == 64 && E == 64 ? attend_head<64> : D == 128 && E == 128 ? attend_head<128> : attend_head<0>;
            head(q, keys + at * D, values + at * E, o, scores.data(), count, heads, D, E, scale, softcap);
        }
    }
}

}  // extern "C"
