// What lies between the matrix products of a decoder on the processor, in float32: norms, rotary embeddings, attention over the cache.
// Compiled once per machine by kernels.py, which also has the same in plain torch. Every function computes a row (a token, a head)
// by itself and in one order, so that its result depends neither on what else is in the batch nor on the number of threads.
//
// Legend: T tokens of the pass, N of them to be attended, H query heads, K key/value heads, D and E sizes of keys and values,
// S cache rows, C their capacity in tokens. All tensors are contiguous.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

// e^x to 2 units in the last place, for a loop to compute on many numbers at once (the C library's takes one at a time).
inline float exponential(float x) {
    x = std::min(std::max(x, -87.0f), 88.0f);
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

// scores[i] = <query, keys[i]> for all i. SIZE is D where it is known in advance, or 0.
template <int SIZE>
void dots(const float* query, const float* keys, float* scores, int64_t count, int64_t size) {
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

// Scores to weights that add up to 1.
void soften(float* scores, int64_t count, float scale, float softcap) {
    if (softcap > 0) {
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) {
            scores[i] = softcap - 2 * softcap / (exponential(2 * scale / softcap * scores[i]) + 1);  // softcap * tanh(scale * score / softcap)
        }
        scale = 1;
    }
    float highest = -INFINITY, sum = 0;
#pragma omp simd reduction(max : highest)
    for (int64_t i = 0; i < count; ++i) highest = std::max(highest, scores[i]);
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; ++i) sum += scores[i] = exponential(scale * (scores[i] - highest));
    const float inverse = 1 / sum;
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) scores[i] *= inverse;
}

constexpr int64_t BLOCK = 16;  // tokens of the cache that all query heads of a key/value head look at before the next ones are fetched (measured: 64 is a fifth slower)

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

}  // namespace

extern "C" {

// out (T, width) = x / sqrt(mean of x^2 + eps) * weight.
void rms_norm(const float* x, const float* weight, float* out, int64_t T, int64_t width, float eps, int threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t t = 0; t < T; ++t) {
        const float* row = x + t * width;
        float* to = out + t * width;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < width; ++i) sum += row[i] * row[i];
        const float factor = 1 / std::sqrt(sum / width + eps);
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) to[i] = weight[i] * (row[i] * factor);
    }
}

// Each row of x (T, width) as bytes around 128, and its scale (T,): the largest number of a row is 127 of its scales away from 0.
void quantize(const float* x, uint8_t* out, float* scales, int64_t T, int64_t width, int threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t t = 0; t < T; ++t) {
        const float* row = x + t * width;
        uint8_t* to = out + t * width;
        float highest = 1e-12f;
#pragma omp simd reduction(max : highest)
        for (int64_t i = 0; i < width; ++i) highest = std::max(highest, std::abs(row[i]));
        const float scale = highest / 127.0f;
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) to[i] = static_cast<uint8_t>(static_cast<int32_t>(row[i] / scale + 128.5f));
        scales[t] = scale;
    }
}

// Turn heads (T, H, D) in place by the angles of their token, whose cosines and sines are (T, D): the halves of a head are paired.
void rotate(float* x, const float* cosines, const float* sines, int64_t T, int64_t H, int64_t D, int threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t t = 0; t < T; ++t) {
        const float *cosine = cosines + t * D, *sine = sines + t * D;
        const int64_t half = D / 2;
        for (int64_t h = 0; h < H; ++h) {
            float *first = x + (t * H + h) * D, *second = first + half;
#pragma omp simd
            for (int64_t d = 0; d < half; ++d) {
                const float a = first[d], b = second[d];
                first[d] = a * cosine[d] - b * sine[d];
                second[d] = b * cosine[d + half] + a * sine[d + half];
            }
        }
    }
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
#pragma omp for schedule(dynamic, 4)
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
