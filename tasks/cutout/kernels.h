/* Boxes of pixels out of FITS images: from plain arrays (gather.c), and from tiles compressed by RICE_1 (rice.c).
 *
 * Called through ctypes, so without the lock of the interpreter; compiled.py holds these structures once more.  Files
 * are read, not mapped: one that is cut off while it is read is then an error, where a mapping would end the process.
 * Nothing in a file is believed: each tile is decoded within its own bytes.
 */

#ifndef ABSURD_CUTOUT_KERNELS
#define ABSURD_CUTOUT_KERNELS

#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LAYOUT 1
#define STRIPE (1 << 20) /* bytes that are read at once: they stay in the cache of the processor */

/* What became of a box or a tile. */
enum { UNTOUCHED, DONE, LOSSLESS, DAMAGED, UNREAD, NO_MEMORY };

enum { NOT_QUANTIZED = -2, NO_DITHER = -1, DITHER_1 = 1, DITHER_2 = 2 };

/* Boxes of one shape on one image, and where their pixels go; what is beyond the image is left as it is. */
typedef struct {
    int32_t fd;
    int32_t item;      /* bytes of a pixel in `out`, and in a plain file */
    int64_t start;     /* place in the file of the first pixel, or of the heap */
    int64_t height, width;
    int64_t ny, nx, n;
    const int64_t *x, *y; /* first pixel of each box on the image */
    const int64_t *slot;  /* which box of `out` it is */
    uint8_t *out;
    int64_t stride;    /* bytes from one box of `out` to the next */
    int8_t *status;    /* of each box; of each tile where there are tiles */
} Boxes;

/* The tiles of a compressed image, as they stand in its table. */
typedef struct {
    int64_t height, width; /* of a tile that is not at the edge */
    int64_t heap;          /* bytes of the heap */
    const int64_t *offset, *length;
    const double *scale, *zero;
    const int32_t *blank;  /* NULL: none */
    int32_t bytepix, block;
    int32_t method;
    int32_t seed;          /* ZDITHER0 */
    int32_t real;          /* pixels are floating point */
    int32_t spare;
} Tiles;

typedef struct {
    int64_t x0, x1, y0, y1; /* on the image, ends exclusive */
} Part;

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* What of a box is on the image, or within a tile of it. */
static inline Part part_of(const Boxes *boxes, int64_t i, Part within) {
    Part part = {most(boxes->x[i], within.x0), least(boxes->x[i] + boxes->nx, within.x1),
                 most(boxes->y[i], within.y0), least(boxes->y[i] + boxes->ny, within.y1)};
    return part;
}

static inline int is_empty(Part part) { return part.x0 >= part.x1 || part.y0 >= part.y1; }

static inline uint8_t *place_of(const Boxes *boxes, int64_t i, int64_t x, int64_t y) {
    return boxes->out + boxes->slot[i] * boxes->stride
           + ((y - boxes->y[i]) * boxes->nx + (x - boxes->x[i])) * boxes->item;
}

static inline int read_all(int fd, uint8_t *to, int64_t size, int64_t from) {
    while (size > 0) {
        ssize_t got = pread(fd, to, (size_t)size, (off_t)from);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return UNREAD;
        to += got, from += got, size -= got;
    }
    return DONE;
}

#endif
