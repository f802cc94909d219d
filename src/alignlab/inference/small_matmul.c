// y = x W^T * scale + bias for few rows of x: bound by reading W once, in fp32, bf16 or int8. Compiled by small_matmul.py at first use.
//
// Legend: B rows (few), N outputs, K inputs. W is (N, K), row after row. Threads share the outputs. Written with GCC's vector
// extensions, so that the same source serves every CPU that GCC or Clang knows.
#include <stdint.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#define KEEP(v) __asm__("" : "+v"(v))  // in a register: GCC would load it anew for every product
#else
#define KEEP(v)
#endif

#define LANES 16
#define TILE 4  // rows of W and of x that are multiplied with each other at a time

typedef float vf __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));
typedef int8_t vb __attribute__((vector_size(LANES)));
typedef uint16_t vh __attribute__((vector_size(2 * LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * LANES)));

static inline vf load_x(const float *p) { vf v; memcpy(&v, p, sizeof v); return v; }
static inline vf load_f32(const float *p) { return load_x(p); }
static inline vf load_bf16(const uint16_t *p) {
    vh v; memcpy(&v, p, sizeof v);
    vu wide = __builtin_convertvector(v, vu) << 16;
    return (vf)wide;
}
#ifdef __AVX512F__  // GCC 12 takes three instructions where this is one
static inline vf load_i8(const int8_t *p) { return (vf)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p))); }
#else
static inline vf load_i8(const int8_t *p) {  // by way of int32: GCC takes bytes to floats one at a time
    vb v; memcpy(&v, p, sizeof v);
    return __builtin_convertvector(__builtin_convertvector(v, vi), vf);
}
#endif
static inline float one_f32(const float *p) { return *p; }
static inline float one_bf16(const uint16_t *p) { uint32_t w = (uint32_t)*p << 16; float f; memcpy(&f, &w, 4); return f; }
static inline float one_i8(const int8_t *p) { return (float)*p; }
static inline float sum(vf v) { float s = 0; for (int i = 0; i < LANES; i++) s += v[i]; return s; }

// A tile of `rows` rows of W against `count` rows of x: what is loaded once serves several products, and additions overlap.
#define DOT(NAME, TYPE, LOAD, ONE)                                                                                   \
    static inline __attribute__((always_inline)) void tile_##NAME(const float *x, const TYPE *w, int rows, int count, \
                                                                  long K, float out[TILE][TILE]) {                    \
        vf total[TILE][TILE];                                                                                        \
        for (int i = 0; i < rows; i++)                                                                               \
            for (int r = 0; r < count; r++) total[i][r] = (vf){0};                                                   \
        long k = 0;                                                                                                  \
        for (; k + LANES <= K; k += LANES) {                                                                         \
            vf part[TILE];                                                                                           \
            for (int i = 0; i < rows; i++) {                                                                         \
                part[i] = LOAD(w + i * K + k);                                                                       \
                KEEP(part[i]);                                                                                       \
            }                                                                                                        \
            for (int r = 0; r < count; r++) {                                                                        \
                vf value = load_x(x + r * K + k);                                                                    \
                KEEP(value);                                                                                         \
                for (int i = 0; i < rows; i++) total[i][r] += part[i] * value;                                       \
            }                                                                                                        \
        }                                                                                                            \
        for (int i = 0; i < rows; i++)                                                                               \
            for (int r = 0; r < count; r++) {                                                                        \
                float rest = sum(total[i][r]);                                                                       \
                for (long j = k; j < K; j++) rest += ONE(w + i * K + j) * x[r * K + j];                              \
                out[i][r] = rest;                                                                                    \
            }                                                                                                        \
    }                                                                                                                \
    static inline __attribute__((always_inline)) void rows_##NAME(const float *x, const TYPE *w, int rows, long B,   \
                                                                  long K, const float *scale, const float *bias,     \
                                                                  float *y, long n, long N) {                        \
        for (long b = 0; b < B; b += TILE) {                                                                         \
            float out[TILE][TILE];                                                                                   \
            int count = B - b < TILE ? (int)(B - b) : TILE;                                                          \
            switch (count) { /* a constant count lets the sums stay in registers */                                  \
                case 1: tile_##NAME(x + b * K, w, rows, 1, K, out); break;                                           \
                case 2: tile_##NAME(x + b * K, w, rows, 2, K, out); break;                                           \
                case 3: tile_##NAME(x + b * K, w, rows, 3, K, out); break;                                           \
                default: tile_##NAME(x + b * K, w, rows, TILE, K, out);                                              \
            }                                                                                                        \
            for (int i = 0; i < rows; i++)                                                                           \
                for (int r = 0; r < count; r++)                                                                      \
                    y[(b + r) * N + n + i] = out[i][r] * (scale ? scale[n + i] : 1.0f) + (bias ? bias[n + i] : 0.0f); \
        }                                                                                                            \
    }                                                                                                                \
    void matmul_##NAME(const float *x, const TYPE *w, const float *scale, const float *bias, float *y, long B,       \
                       long N, long K, int threads) {                                                                \
        _Pragma("omp parallel for schedule(static) num_threads(threads)") for (long t = 0; t < (N + TILE - 1) / TILE; t++) { \
            long n = t * TILE;                                                                                       \
            if (n + TILE <= N) rows_##NAME(x, w + n * K, TILE, B, K, scale, bias, y, n, N);                          \
            else for (; n < N; n++) rows_##NAME(x, w + n * K, 1, B, K, scale, bias, y, n, N);                        \
        }                                                                                                            \
    }

DOT(f32, float, load_f32, one_f32)
DOT(bf16, uint16_t, load_bf16, one_bf16)
DOT(i8, int8_t, load_i8, one_i8)

// Activations rounded to 8 bits a row (stored + 128, as the dot product instruction wants one unsigned side).
void quantize_rows(const float *x, uint8_t *q, float *scale, long B, long K) {
    for (long b = 0; b < B; b++) {
        float largest = 1e-12f;
        for (long k = 0; k < K; k++) { float a = x[b * K + k] < 0 ? -x[b * K + k] : x[b * K + k]; largest = a > largest ? a : largest; }
        float factor = 127.0f / largest;
        for (long k = 0; k < K; k++) q[b * K + k] = (uint8_t)(int32_t)(x[b * K + k] * factor + 128.5f);
        scale[b] = largest / 127.0f;
    }
}

// W8A8: integers only in the sum; `sums` holds each row's sum of W, which takes the 128 back out.
void matmul_i8i8(const uint8_t *q, const float *x_scale, const int8_t *w, const float *scale, const int32_t *sums,
                 const float *bias, float *y, long B, long N, long K, int threads) {
    _Pragma("omp parallel for schedule(static) num_threads(threads)") for (long n = 0; n < N; n++) {
        const int8_t *row = w + n * K;
        for (long b = 0; b < B; b++) {
            const uint8_t *p = q + b * K;
            int32_t total = 0;
            for (long k = 0; k < K; k++) total += (int32_t)p[k] * (int32_t)row[k];
            y[b * N + n] = (float)(total - 128 * sums[n]) * x_scale[b] * scale[n] + (bias ? bias[n] : 0.0f);
        }
    }
}
