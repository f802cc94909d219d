// y = x W^T * scale + bias for few rows of x: bound by reading W once, in fp32, bf16 or int8.
//
// Legend: B rows (few), N outputs, K inputs. W is (N, K), row after row. Written with GCC's vector extensions, so that the same source serves
// every CPU that GCC or Clang knows.
#include <stdint.h>
#include <string.h>
#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

// TILE rows of W and ACROSS rows of x are multiplied with each other at a time: their sums have to fit into the registers.
#define TILE 4
#ifdef __AVX512F__
#define LANES 16
#define ACROSS 4
#define KEEP(v) __asm__("" : "+v"(v))  // in a register: GCC would load it anew for every product
#define MORE(CASE) CASE(2) CASE(3)
#else  // 16 registers of 8 numbers
#define LANES 8
#define ACROSS 2
#define KEEP(v)
#define MORE(CASE)
#endif

typedef float vf __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));
typedef int8_t vb __attribute__((vector_size(LANES)));
typedef uint16_t vh __attribute__((vector_size(2 * LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * LANES)));

static inline vf load_x(const float *p) { vf v; memcpy(&v, p, sizeof v); return v; }
static inline vf load_f32(const float *p) { return load_x(p); }
static inline vf load_bf16(const uint16_t *p) {
    vh v; memcpy(&v, p, sizeof v);
    return (vf)(__builtin_convertvector(v, vu) << 16);
}
#ifdef __AVX512F__  // GCC 12 takes several instructions where this is one
static inline vf load_i8(const int8_t *p) {
    return (vf)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
#elif defined(__AVX2__)
static inline vf load_i8(const int8_t *p) {
    return (vf)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
#else
static inline vf load_i8(const int8_t *p) {
    vb v; memcpy(&v, p, sizeof v);
    return __builtin_convertvector(__builtin_convertvector(v, vi), vf);
}
#endif
static inline float one_f32(const float *p) { return *p; }
static inline float one_bf16(const uint16_t *p) { uint32_t w = (uint32_t)*p << 16; float f; memcpy(&f, &w, 4); return f; }
static inline float one_i8(const int8_t *p) { return (float)*p; }
static inline float sum(vf v) { float s = 0; for (int i = 0; i < LANES; i++) s += v[i]; return s; }

// For one type of W: `dot` is one row of both sides; `tile` several rows of each, where what is loaded once serves several products; `range` the
// outputs from `lo` to `hi` of all B rows, y's rows being `ld` apart.
#define PRODUCTS(NAME, TYPE, LOAD, ONE)                                                                              \
    static inline float dot_##NAME(const float *x, const TYPE *w, long K) {                                          \
        vf a[4] = {{0}, {0}, {0}, {0}};                                                                              \
        long k = 0;                                                                                                  \
        for (; k + 4 * LANES <= K; k += 4 * LANES)                                                                   \
            for (int i = 0; i < 4; i++) a[i] += LOAD(w + k + i * LANES) * load_x(x + k + i * LANES);                 \
        float total = sum((a[0] + a[1]) + (a[2] + a[3]));                                                            \
        for (; k < K; k++) total += ONE(w + k) * x[k];                                                               \
        return total;                                                                                                \
    }                                                                                                                \
    static inline __attribute__((always_inline)) void tile_##NAME(const float *x, const TYPE *w, int rows, int count, \
                                                                  long K, float out[TILE][ACROSS]) {                 \
        vf total[TILE][ACROSS];                                                                                      \
        for (int i = 0; i < rows; i++)                                                                               \
            for (int r = 0; r < count; r++) total[i][r] = (vf){0};                                                   \
        long k = 0;                                                                                                  \
        for (; k + LANES <= K; k += LANES) {                                                                         \
            vf part[TILE];                                                                                           \
            for (int i = 0; i < rows; i++) {                                                                         \
                part[i] = LOAD(w + i * K + k);                                                                       \
                KEEP(part[i]);                                                                                       \
                __builtin_prefetch(w + (rows + i) * K + k); /* of the next tile: hardware follows one row, not four */ \
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
                                                                  float *y, long ld, long n) {                       \
        for (long b = 0; b < B; b += ACROSS) {                                                                       \
            float out[TILE][ACROSS];                                                                                 \
            int count = B - b < ACROSS ? (int)(B - b) : ACROSS;                                                      \
            switch (count) { /* a constant count lets the sums stay in registers */                                  \
                case 1: tile_##NAME(x + b * K, w + n * K, rows, 1, K, out); break;                                   \
                MORE(CASE_##NAME)                                                                                    \
                default: tile_##NAME(x + b * K, w + n * K, rows, ACROSS, K, out);                                    \
            }                                                                                                        \
            for (int i = 0; i < rows; i++)                                                                           \
                for (int r = 0; r < count; r++)                                                                      \
                    y[(b + r) * ld + n + i] = out[i][r] * (scale ? scale[n + i] : 1.0f) + (bias ? bias[n + i] : 0.0f); \
        }                                                                                                            \
    }                                                                                                                \
    static void range_##NAME(const float *x, const TYPE *w, const float *scale, const float *bias, float *y, long B, \
                             long K, long ld, long lo, long hi) {                                                    \
        long n = lo;                                                                                                 \
        if (B == 1) /* bound by memory alone: row after row */                                                       \
            for (; n < hi; n++)                                                                                      \
                y[n] = dot_##NAME(x, w + n * K, K) * (scale ? scale[n] : 1.0f) + (bias ? bias[n] : 0.0f);            \
        for (; n + TILE <= hi; n += TILE) rows_##NAME(x, w, TILE, B, K, scale, bias, y, ld, n);                      \
        for (; n < hi; n++) rows_##NAME(x, w, 1, B, K, scale, bias, y, ld, n);                                       \
    }

#define CASE_f32(C) case C: tile_f32(x + b * K, w + n * K, rows, C, K, out); break;
#define CASE_bf16(C) case C: tile_bf16(x + b * K, w + n * K, rows, C, K, out); break;
#define CASE_i8(C) case C: tile_i8(x + b * K, w + n * K, rows, C, K, out); break;
PRODUCTS(f32, float, load_f32, one_f32)
PRODUCTS(bf16, uint16_t, load_bf16, one_bf16)
PRODUCTS(i8, int8_t, load_i8, one_i8)

// Activations rounded to 8 bits a row (stored + 128, as the dot product instruction wants one unsigned side).
void quantize_rows(const float *x, uint8_t *q, float *scale, long B, long K) {
    for (long b = 0; b < B; b++) {
        float largest = 1e-12f;
        for (long k = 0; k < K; k++) {
            float a = x[b * K + k] < 0 ? -x[b * K + k] : x[b * K + k];
            largest = a > largest ? a : largest;
        }
        float factor = 127.0f / largest;
        for (long k = 0; k < K; k++) q[b * K + k] = (uint8_t)(int32_t)(x[b * K + k] * factor + 128.5f);
        scale[b] = largest / 127.0f;
    }
}

// W8A8: integers only in the sum; `sums` holds each row's sum of W, which takes the 128 back out.
static void range_i8i8(const uint8_t *q, const float *q_scale, const int8_t *w, const float *scale, const int32_t *sums,
                       const float *bias, float *y, long B, long K, long ld, long lo, long hi) {
    for (long n = lo; n < hi; n++)
        for (long b = 0; b < B; b++) {
            int32_t total = 0;
            for (long k = 0; k < K; k++) total += (int32_t)q[b * K + k] * (int32_t)w[n * K + k];
            y[b * ld + n] = (float)(total - 128 * sums[n]) * q_scale[b] * scale[n] + (bias ? bias[n] : 0.0f);
        }
}

enum { F32, BF16, I8, I8I8 };

typedef struct {  // one matrix of the model
    const void *w;
    const float *scale, *bias;  // of each output, or null
    const int32_t *sums;        // of each row of an int8 matrix, for I8I8
    long N, K;
    int kind;
} Matrix;

// Outputs from lo to hi; `q` and `q_scale` are x in 8 bits for I8I8.
static void product(const Matrix *m, const float *x, const uint8_t *q, const float *q_scale, float *y, long B, long ld,
                    long lo, long hi) {
    switch (m->kind) {
        case F32: range_f32(x, m->w, m->scale, m->bias, y, B, m->K, ld, lo, hi); break;
        case BF16: range_bf16(x, m->w, m->scale, m->bias, y, B, m->K, ld, lo, hi); break;
        case I8: range_i8(x, m->w, m->scale, m->bias, y, B, m->K, ld, lo, hi); break;
        default: range_i8i8(q, q_scale, m->w, m->scale, m->sums, m->bias, y, B, m->K, ld, lo, hi);
    }
}

// The part of N outputs that thread `id` computes.
static void share(long N, int id, int threads, long *lo, long *hi) {
    long tiles = (N + TILE - 1) / TILE;
    *lo = tiles * id / threads * TILE;
    *hi = tiles * (id + 1) / threads * TILE;
    if (*hi > N) *hi = N;
}

void matmul(const Matrix *m, const float *x, const uint8_t *q, const float *q_scale, float *y, long B, int threads) {
    _Pragma("omp parallel for schedule(static) num_threads(threads)") for (int id = 0; id < threads; id++) {
        long lo, hi;
        share(m->N, id, threads, &lo, &hi);
        product(m, x, q, q_scale, y, B, m->N, lo, hi);
    }
}
