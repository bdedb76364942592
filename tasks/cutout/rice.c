/* Boxes out of images whose tiles are compressed by RICE_1. */

#include "kernels.h"

/* The code: R. F. Rice, P.-S. Yeh, W. H. Miller 1993, AIAA-93-4541; FITS standard 4.0, 10.4.1 ------------------------ */

#define MARGIN 16 /* bytes that may be read, and are not believed, after the end of a tile */

typedef struct {
    const uint8_t *bytes;
    int64_t next, end; /* of the tile */
    uint64_t bits;     /* those that come next, from the top */
    int count;         /* how many of them there are */
} Stream;

/* At least 56 bits; behind the end they mean nothing, see is_spent. */
static inline void refill(Stream *stream) {
    uint64_t word;
    if (stream->next <= stream->end) {
        memcpy(&word, stream->bytes + stream->next, sizeof word);
        stream->bits |= __builtin_bswap64(word) >> stream->count;
    }
    stream->next += (63 - stream->count) >> 3;
    stream->count |= 56;
}

static inline uint32_t take(Stream *stream, int count) { /* 0 to 32 bits */
    uint32_t value;
    refill(stream);
    value = (uint32_t)((stream->bits >> 1) >> (63 - count));
    stream->bits <<= count;
    stream->count -= count;
    return value;
}

/* Whether more was taken than there is. */
static inline int is_spent(const Stream *stream) { return stream->next - stream->end > (stream->count >> 3); }

/* A run of noughts that is longer than what is at hand; -1 if it never ends. */
static int64_t long_run(Stream *stream) {
    int64_t zeros = 0;
    for (;;) {
        refill(stream);
        if (stream->bits >> 8) break;
        zeros += 56;
        stream->bits <<= 56;
        stream->count -= 56;
        if (is_spent(stream)) return -1;
    }
    int more = __builtin_clzll(stream->bits);
    stream->bits <<= more + 1;
    stream->count -= more + 1;
    return zeros + more;
}

/* The first `wanted` pixels of a tile. */
static int decode(const uint8_t *bytes, int64_t length, int32_t bytepix, int32_t block, int32_t *pixels,
                  int64_t wanted) {
    const int code_bits = bytepix == 4 ? 5 : bytepix == 2 ? 4 : 3;
    const int verbatim = bytepix == 4 ? 25 : bytepix == 2 ? 14 : 6;
    const int pixel_bits = 8 * bytepix;
    Stream stream = {bytes, 0, length, 0, 0};
    uint32_t last = take(&stream, pixel_bits);
    for (int64_t done = 0; done < wanted;) {
        int64_t upto = least(done + block, wanted);
        int split = (int)take(&stream, code_bits) - 1;
        if (split < 0) {
            for (; done < upto; done++) pixels[done] = (int32_t)last;
        } else if (split == verbatim) {
            for (; done < upto; done++) {
                uint32_t code = take(&stream, pixel_bits);
                last += (code >> 1) ^ (0 - (code & 1));
                pixels[done] = (int32_t)last;
            }
        } else {
            for (; done < upto; done++) {
                uint32_t code;
                refill(&stream);
                int zeros = stream.bits ? __builtin_clzll(stream.bits) : 64;
                if (zeros + 1 + split <= 56) {
                    uint64_t rest = stream.bits << zeros << 1;
                    code = ((uint32_t)zeros << split) | (uint32_t)((rest >> 1) >> (63 - split));
                    stream.bits = rest << split;
                    stream.count -= zeros + 1 + split;
                } else {
                    int64_t run = long_run(&stream);
                    if (run < 0) return DAMAGED;
                    code = ((uint32_t)run << split) | take(&stream, split);
                }
                last += (code >> 1) ^ (0 - (code & 1));
                pixels[done] = (int32_t)last;
            }
        }
        if (is_spent(&stream)) return DAMAGED;
    }
    /* Sums are modulo the width of a pixel; bytes have no sign, wider ones have. */
    if (bytepix == 2)
        for (int64_t k = 0; k < wanted; k++) pixels[k] = (int16_t)pixels[k];
    else if (bytepix == 1)
        for (int64_t k = 0; k < wanted; k++) pixels[k] = (uint8_t)pixels[k];
    return DONE;
}

/* From integers to floating point: FITS standard 4.0, 10.2 --------------------------------------------------------- */

#define RANDOMS 10000
#define ZERO (-2147483646) /* stands for 0.0 exactly with DITHER_2 */

/* Numbers by S. K. Park and K. W. Miller 1988, Communications of the ACM 31, 1192; in single precision, as the
 * convention has it. */
void absurd_randoms(float *randoms) {
    int64_t seed = 1;
    for (int k = 0; k < RANDOMS; k++) {
        seed = 16807 * seed % 2147483647;
        randoms[k] = (float)((double)seed / 2147483647.0);
    }
}

typedef struct {
    const float *randoms;
    int seed;        /* of the stretch */
    int64_t next;    /* in `randoms` */
} Dither;

static Dither dither_at(const float *randoms, int64_t row, int64_t pixel) {
    Dither dither = {randoms, (int)((row - 1) % RANDOMS), 0};
    for (;;) {
        int64_t first = (int)(randoms[dither.seed] * 500);
        if (pixel < RANDOMS - first) {
            dither.next = first + pixel;
            return dither;
        }
        pixel -= RANDOMS - first;
        dither.seed = (dither.seed + 1) % RANDOMS;
    }
}

static double missing(void) { return __builtin_nan(""); }

/* A row of pixels; `row` counts tiles from the seed on, `first` is the place of the first pixel in its tile. */
#define DEFINE_REAL(NAME, TYPE)                                                                                        \
    static void NAME(const Tiles *tiles, int64_t tile, const float *randoms, const int32_t *from, int64_t first,       \
                     int64_t count, uint8_t *out) {                                                                    \
        TYPE *to = (TYPE *)out;                                                                                        \
        const double scale = tiles->scale[tile], zero = tiles->zero[tile];                                             \
        if (tiles->method == NO_DITHER) {                                                                              \
            for (int64_t k = 0; k < count; k++) to[k] = (TYPE)((double)from[k] * scale + zero);                        \
        } else {                                                                                                       \
            for (int64_t k = 0; k < count;) {                                                                          \
                Dither dither = dither_at(randoms, tile + tiles->seed, first + k);                                     \
                int64_t upto = k + least(count - k, RANDOMS - dither.next);                                            \
                const float *random = randoms + dither.next;                                                           \
                for (; k < upto; k++, random++)                                                                        \
                    to[k] = (TYPE)(((double)from[k] - (double)*random + 0.5) * scale + zero);                          \
            }                                                                                                          \
            if (tiles->method == DITHER_2)                                                                             \
                for (int64_t k = 0; k < count; k++)                                                                    \
                    if (from[k] == ZERO) to[k] = 0;                                                                    \
        }                                                                                                              \
        if (tiles->blank)                                                                                              \
            for (int64_t k = 0; k < count; k++)                                                                        \
                if (from[k] == tiles->blank[tile]) to[k] = (TYPE)missing();                                            \
    }

DEFINE_REAL(put_float, float)
DEFINE_REAL(put_double, double)

static void put_integers(int32_t item, const int32_t *from, int64_t count, uint8_t *out) {
    if (item == 4) memcpy(out, from, (size_t)count * 4);
    else if (item == 2)
        for (int64_t k = 0; k < count; k++) ((int16_t *)out)[k] = (int16_t)from[k];
    else
        for (int64_t k = 0; k < count; k++) out[k] = (uint8_t)from[k];
}

/* Tiles ------------------------------------------------------------------------------------------------------------ */

#define GAP (1 << 14) /* bytes between two tiles that are sooner read than passed over */

typedef struct {
    uint8_t *bytes;
    int64_t room, begin, end; /* of the heap */
    int32_t *pixels;
    int64_t most_pixels;
} Memory;

typedef struct {
    int64_t across, all; /* tiles in a row of tiles, and altogether */
    int64_t *first;      /* of each tile, in `box` */
    int64_t *box;        /* boxes that want something of the tile */
} Wanted;

static Part tile_part(const Boxes *boxes, const Tiles *tiles, const Wanted *wanted, int64_t tile) {
    int64_t x = tile % wanted->across * tiles->width, y = tile / wanted->across * tiles->height;
    Part part = {x, least(x + tiles->width, boxes->width), y, least(y + tiles->height, boxes->height)};
    return part;
}

/* Which boxes want which tiles: sorted by counting. */
static int sort_wants(const Boxes *boxes, const Tiles *tiles, Wanted *wanted) {
    Part image = {0, boxes->width, 0, boxes->height};
    wanted->across = (boxes->width - 1) / tiles->width + 1;
    wanted->all = wanted->across * ((boxes->height - 1) / tiles->height + 1);
    wanted->first = calloc((size_t)wanted->all + 2, sizeof *wanted->first);
    if (!wanted->first) return NO_MEMORY;
    for (int pass = 0; pass < 2; pass++) {
        int64_t *count = wanted->first + (pass ? 1 : 2);
        for (int64_t i = 0; i < boxes->n; i++) {
            Part part = part_of(boxes, i, image);
            if (is_empty(part)) continue;
            for (int64_t v = part.y0 / tiles->height; v <= (part.y1 - 1) / tiles->height; v++)
                for (int64_t u = part.x0 / tiles->width; u <= (part.x1 - 1) / tiles->width; u++) {
                    int64_t *place = count + v * wanted->across + u;
                    if (pass) wanted->box[*place] = i;
                    ++*place;
                }
        }
        if (!pass) {
            for (int64_t t = 0; t <= wanted->all; t++) wanted->first[t + 1] += wanted->first[t];
            wanted->box = malloc((size_t)(wanted->first[wanted->all + 1] + 1) * sizeof *wanted->box);
            if (!wanted->box) return NO_MEMORY;
        }
    }
    return DONE;
}

static int is_within(const Tiles *tiles, int64_t tile) {
    return tiles->offset[tile] >= 0 && tiles->length[tile] > 0 && tiles->length[tile] <= tiles->heap
           && tiles->offset[tile] <= tiles->heap - tiles->length[tile];
}

/* Have the bytes of a tile in memory, and those of the wanted tiles that follow closely. */
static int fetch(const Boxes *boxes, const Tiles *tiles, const Wanted *wanted, int64_t tile, Memory *memory) {
    int64_t begin = tiles->offset[tile], end = begin + tiles->length[tile];
    if (begin >= memory->begin && end <= memory->end) return DONE;
    for (int64_t t = tile + 1, upto = end; t < wanted->all; t++) {
        if (wanted->first[t] == wanted->first[t + 1] || !is_within(tiles, t)) continue;
        int64_t from = tiles->offset[t];
        upto = from + tiles->length[t];
        if (from < end || from > end + GAP || upto - begin > STRIPE) break;
        end = upto;
    }
    if (end - begin + MARGIN > memory->room) {
        uint8_t *bytes = realloc(memory->bytes, (size_t)(end - begin + MARGIN));
        if (!bytes) return NO_MEMORY;
        memory->bytes = bytes;
        memory->room = end - begin + MARGIN;
    }
    memory->begin = memory->end = 0;
    if (read_all(boxes->fd, memory->bytes, end - begin, boxes->start + begin) != DONE) {
        end = begin + tiles->length[tile]; /* perhaps only one that follows is lost */
        if (read_all(boxes->fd, memory->bytes, end - begin, boxes->start + begin) != DONE) return UNREAD;
    }
    memset(memory->bytes + (end - begin), 0, MARGIN);
    memory->begin = begin;
    memory->end = end;
    return DONE;
}

static int decode_tile(const Boxes *boxes, const Tiles *tiles, const Wanted *wanted, int64_t tile,
                       const float *randoms, Memory *memory) {
    if (tiles->length[tile] == 0) return LOSSLESS;
    if (!is_within(tiles, tile)) return DAMAGED;
    Part whole = tile_part(boxes, tiles, wanted, tile);
    int64_t width = whole.x1 - whole.x0, last = 0;
    for (int64_t k = wanted->first[tile]; k < wanted->first[tile + 1]; k++) {
        Part part = part_of(boxes, wanted->box[k], whole);
        last = most(last, (part.y1 - 1 - whole.y0) * width + (part.x1 - whole.x0));
    }
    if (last > memory->most_pixels) {
        int32_t *pixels = realloc(memory->pixels, (size_t)last * sizeof *pixels);
        if (!pixels) return NO_MEMORY;
        memory->pixels = pixels;
        memory->most_pixels = last;
    }
    int status = fetch(boxes, tiles, wanted, tile, memory);
    if (status != DONE) return status;
    status = decode(memory->bytes + (tiles->offset[tile] - memory->begin), tiles->length[tile], tiles->bytepix,
                    tiles->block, memory->pixels, last);
    if (status != DONE) return status;
    for (int64_t k = wanted->first[tile]; k < wanted->first[tile + 1]; k++) {
        int64_t i = wanted->box[k];
        Part part = part_of(boxes, i, whole);
        for (int64_t y = part.y0; y < part.y1; y++) {
            int64_t first = (y - whole.y0) * width + (part.x0 - whole.x0), count = part.x1 - part.x0;
            const int32_t *from = memory->pixels + first;
            uint8_t *to = place_of(boxes, i, part.x0, y);
            if (!tiles->real) put_integers(boxes->item, from, count, to);
            else if (boxes->item == 4) put_float(tiles, tile, randoms, from, first, count, to);
            else put_double(tiles, tile, randoms, from, first, count, to);
        }
    }
    return DONE;
}

/* Cut boxes out of a compressed image: each tile is decoded once, up to the last pixel that is wanted. */
int32_t absurd_rice(const Boxes *boxes, const Tiles *tiles, const float *randoms) {
    Wanted wanted = {0};
    Memory memory = {0};
    int status = sort_wants(boxes, tiles, &wanted);
    if (status == DONE)
        for (int64_t tile = 0; tile < wanted.all; tile++)
            if (wanted.first[tile] < wanted.first[tile + 1])
                boxes->status[tile] = (int8_t)decode_tile(boxes, tiles, &wanted, tile, randoms, &memory);
    free(wanted.first);
    free(wanted.box);
    free(memory.bytes);
    free(memory.pixels);
    return status;
}
