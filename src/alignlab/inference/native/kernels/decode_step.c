// All blocks of a decoder for one token a row, in one call: no interpreter between the products. Compiled by kernels.py at first use.
//
// Legend: B rows, W width, H query heads, G key heads, D head width, F inner width of the MLP, S columns of the cache. Activations are fp32;
// matrices and the cache are what they are.
#include "small_matmul.c"

#include <math.h>
#include <stdlib.h>
#include <omp.h>

typedef struct {
    const float *norm1, *shift1, *norm2, *shift2;  // a shift is null with RMSNorm
    Matrix q, k, v, out, gate, up, down;           // without a gate, `gate` is the only one
} Layer;

typedef struct {
    const Layer *layer;
    long layers, B, W, H, G, D, F, rotary, column;
    const int64_t *starts;  // (B,) first column of each row
    float eps;
    int rms, activation, gated, half, threads;  // half: the cache is bf16
    char *keys, *values;                        // (layers, B, G, S, D)
    long at_layer, at_row, at_head, at_column;  // strides in numbers
    const float *cosine, *sine;                 // (B, rotary)
    float *x, *qkv, *attended, *middle;         // (B, W) in and out; (B, (H + 2G) D), (B, H D), (B, F) scratch
} Step;

enum { GELU, GELU_TANH, SILU, RELU };

static inline float activate(float x, int kind) {
    switch (kind) {
        case GELU: return 0.5f * x * (1.0f + erff(x * 0.70710678f));
        case GELU_TANH: return 0.5f * x * (1.0f + tanhf(0.79788456f * x * (1.0f + 0.044715f * x * x)));
        case SILU: return x / (1.0f + expf(-x));
        default: return x > 0 ? x : 0;
    }
}

static void normalise(const Step *s, const float *weight, const float *shift, float *y) {
    for (long b = 0; b < s->B; b++) {
        const float *x = s->x + b * s->W;
        float mean = 0, square = 0;
        if (!s->rms) {
            for (long i = 0; i < s->W; i++) mean += x[i];
            mean /= s->W;
        }
        for (long i = 0; i < s->W; i++) square += (x[i] - mean) * (x[i] - mean);
        float factor = 1.0f / sqrtf(square / s->W + s->eps);
        for (long i = 0; i < s->W; i++) y[b * s->W + i] = (x[i] - mean) * factor * weight[i] + (shift ? shift[i] : 0.0f);
    }
}

static void rotate(const Step *s, long b, const float *x, float *y) {
    long half = s->rotary / 2;
    const float *cosine = s->cosine + b * s->rotary, *sine = s->sine + b * s->rotary;
    for (long i = 0; i < half; i++) {
        y[i] = x[i] * cosine[i] + x[i + half] * sine[i];
        y[i + half] = x[i + half] * cosine[i + half] + x[i] * sine[i + half];
    }
    for (long i = s->rotary; i < s->D; i++) y[i] = x[i];
}

static void store(const Step *s, char *cache, long place, const float *x) {
    if (!s->half) {
        memcpy((float *)cache + place, x, s->D * sizeof(float));
        return;
    }
    uint16_t *to = (uint16_t *)cache + place;
    for (long i = 0; i < s->D; i++) {  // to the nearest, ties to even
        uint32_t bits;
        memcpy(&bits, x + i, 4);
        to[i] = (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    }
}

// Row b's new key and value of one head into the cache.
static void remember(const Step *s, long layer, long b, long head) {
    long place = layer * s->at_layer + b * s->at_row + head * s->at_head + s->column * s->at_column;
    const float *row = s->qkv + b * (s->H + 2 * s->G) * s->D;
    float key[s->D];
    rotate(s, b, row + (s->H + head) * s->D, key);
    store(s, s->keys, place, key);
    store(s, s->values, place, row + (s->H + s->G + head) * s->D);
}

#define ATTEND(NAME, TYPE, ONE)                                                                                      \
    static void attend_##NAME(const Step *s, long layer, long b, long head, float *score) {                          \
        long first = s->starts[b], group = s->H / s->G, D = s->D;                                                    \
        long place = layer * s->at_layer + b * s->at_row + head / group * s->at_head;                                \
        const TYPE *keys = (const TYPE *)s->keys + place, *values = (const TYPE *)s->values + place;                 \
        float query[D], largest = -3.4e38f, total = 0, *y = s->attended + (b * s->H + head) * D;                    \
        rotate(s, b, s->qkv + (b * (s->H + 2 * s->G) + head) * D, query);                                            \
        for (long i = 0; i < D; i++) query[i] /= sqrtf((float)D);                                                    \
        for (long j = first; j <= s->column; j++) {                                                                  \
            score[j] = dot_##NAME(query, keys + j * s->at_column, D);                                                \
            largest = score[j] > largest ? score[j] : largest;                                                       \
        }                                                                                                            \
        for (long j = first; j <= s->column; j++) total += score[j] = expf(score[j] - largest);                      \
        for (long i = 0; i < D; i++) y[i] = 0;                                                                       \
        for (long j = first; j <= s->column; j++) {                                                                  \
            float weight = score[j] / total;                                                                         \
            for (long i = 0; i < D; i++) y[i] += weight * ONE(values + j * s->at_column + i);                        \
        }                                                                                                            \
    }

ATTEND(f32, float, one_f32)
ATTEND(bf16, uint16_t, one_bf16)

typedef struct {  // of a thread
    float *normed, *result, *score, *q_scale;
    uint8_t *q;
    int id;
} Own;

// This thread's outputs of y = m(x); every thread rounds x for itself where the matrix wants it in 8 bits.
static void multiply(const Step *s, const Own *own, const Matrix *m, const float *x, int rounded, float *y, long ld,
                     long *lo, long *hi) {
    if (m->kind == I8I8 && !rounded) quantize_rows(x, own->q, own->q_scale, s->B, m->K);
    share(m->N, own->id, s->threads, lo, hi);
    product(m, x, own->q, own->q_scale, y, s->B, ld, *lo, *hi);
}

static void add(const Step *s, const Own *own, long lo, long hi) {
    for (long b = 0; b < s->B; b++)
        for (long n = lo; n < hi; n++) s->x[b * s->W + n] += own->result[b * s->W + n];
}

static void block(const Step *s, const Own *own, long index) {
    const Layer *layer = s->layer + index;
    long lo, hi, D = s->D, ld = (s->H + 2 * s->G) * D;
    normalise(s, layer->norm1, layer->shift1, own->normed);
    multiply(s, own, &layer->q, own->normed, 0, s->qkv, ld, &lo, &hi);
    multiply(s, own, &layer->k, own->normed, 1, s->qkv + s->H * D, ld, &lo, &hi);
    multiply(s, own, &layer->v, own->normed, 1, s->qkv + (s->H + s->G) * D, ld, &lo, &hi);
#pragma omp barrier
#pragma omp for schedule(static)
    for (long i = 0; i < s->B * s->G; i++) remember(s, index, i / s->G, i % s->G);
#pragma omp for schedule(static)
    for (long i = 0; i < s->B * s->H; i++) {
        if (s->half) attend_bf16(s, index, i / s->H, i % s->H, own->score);
        else attend_f32(s, index, i / s->H, i % s->H, own->score);
    }
    multiply(s, own, &layer->out, s->attended, 0, own->result, s->W, &lo, &hi);
    add(s, own, lo, hi);
#pragma omp barrier
    normalise(s, layer->norm2, layer->shift2, own->normed);
    multiply(s, own, &layer->gate, own->normed, 0, s->middle, s->F, &lo, &hi);
    if (s->gated) multiply(s, own, &layer->up, own->normed, 1, own->result, s->F, &lo, &hi);
    for (long b = 0; b < s->B; b++)
        for (long n = lo; n < hi; n++) {
            float value = activate(s->middle[b * s->F + n], s->activation);
            s->middle[b * s->F + n] = s->gated ? value * own->result[b * s->F + n] : value;
        }
#pragma omp barrier
    multiply(s, own, &layer->down, s->middle, 0, own->result, s->W, &lo, &hi);
    add(s, own, lo, hi);
#pragma omp barrier
}

void decode_step(const Step *s) {
#pragma omp parallel num_threads(s->threads)
    {
        long wide = s->W > s->F ? s->W : s->F, widest = wide > s->H * s->D ? wide : s->H * s->D;
        Own own = {.id = omp_get_thread_num()};
        float *memory = malloc(sizeof(float) * (s->B * (s->W + wide + 1) + s->column + 1) + s->B * widest);
        own.normed = memory;
        own.result = own.normed + s->B * s->W;
        own.q_scale = own.result + s->B * wide;
        own.score = own.q_scale + s->B;
        own.q = (uint8_t *)(own.score + s->column + 1);
        for (long index = 0; index < s->layers; index++) block(s, &own, index);
        free(memory);
    }
}
