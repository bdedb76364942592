/* Boxes out of plain images. */

#include "kernels.h"

int32_t absurd_cutout_layout(void) { return LAYOUT; }

#define LONG_ROW (1 << 16) /* bytes of a row beyond which what lies between two rows of a box is not worth reading */
#define MOST_ROOM (1 << 26) /* bytes of a stripe; of boxes so tall that they would need more, each row is read alone */

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define AS_WIDE_AS_THE_PROCESSOR __attribute__((target_clones("avx2", "default")))
#else
#define AS_WIDE_AS_THE_PROCESSOR
#endif

/* From the byte order of FITS to that of a little-endian machine; `from` may be `to`. */
AS_WIDE_AS_THE_PROCESSOR static void copy_swapped(uint8_t *to, const uint8_t *from, int64_t count, int32_t item) {
    if (item == 4) {
        uint32_t *target = (uint32_t *)to;
        const uint32_t *source = (const uint32_t *)from;
        for (int64_t k = 0; k < count; k++) target[k] = __builtin_bswap32(source[k]);
    } else if (item == 2) {
        uint16_t *target = (uint16_t *)to;
        const uint16_t *source = (const uint16_t *)from;
        for (int64_t k = 0; k < count; k++) target[k] = __builtin_bswap16(source[k]);
    } else if (item == 8) {
        uint64_t *target = (uint64_t *)to;
        const uint64_t *source = (const uint64_t *)from;
        for (int64_t k = 0; k < count; k++) target[k] = __builtin_bswap64(source[k]);
    } else if (to != from) {
        memcpy(to, from, (size_t)count);
    }
}

static int row_by_row(const Boxes *boxes, int64_t i, Part part) {
    int64_t count = part.x1 - part.x0;
    for (int64_t y = part.y0; y < part.y1; y++) {
        uint8_t *to = place_of(boxes, i, part.x0, y);
        int64_t from = boxes->start + (y * boxes->width + part.x0) * boxes->item;
        if (read_all(boxes->fd, to, count * boxes->item, from) != DONE) return UNREAD;
        copy_swapped(to, to, count, boxes->item);
    }
    return DONE;
}

/* Pixels begin to end - 1 of the image in memory. */
typedef struct {
    uint8_t *bytes;
    int64_t begin, end;
} Window;

/* Move the window on, to the pixels from begin to end - 1; what it has of them is not read again. */
static int slide(const Boxes *boxes, Window *window, int64_t begin, int64_t end) {
    int64_t kept = 0, item = boxes->item;
    if (begin >= window->begin && begin < window->end) {
        kept = least(window->end, end) - begin;
        memmove(window->bytes, window->bytes + (begin - window->begin) * item, (size_t)(kept * item));
    }
    window->begin = begin;
    window->end = begin + kept;
    if (window->end == end) return DONE;
    int64_t from = boxes->start + (begin + kept) * item;
    if (read_all(boxes->fd, window->bytes + kept * item, (end - begin - kept) * item, from) != DONE) return UNREAD;
    window->end = end;
    return DONE;
}

/* Boxes first to last - 1 out of what lies between their first and their last pixel. */
static void stripe(const Boxes *boxes, int64_t first, int64_t last, int64_t begin, int64_t end, Window *window) {
    Part image = {0, boxes->width, 0, boxes->height};
    int read = slide(boxes, window, begin, end);
    for (int64_t i = first; i < last; i++) {
        Part part = part_of(boxes, i, image);
        if (is_empty(part)) continue;
        if (read != DONE) { /* which of them it was */
            boxes->status[i] = (int8_t)row_by_row(boxes, i, part);
            continue;
        }
        for (int64_t y = part.y0; y < part.y1; y++) {
            const uint8_t *from = window->bytes + (y * boxes->width + part.x0 - begin) * boxes->item;
            copy_swapped(place_of(boxes, i, part.x0, y), from, part.x1 - part.x0, boxes->item);
        }
        boxes->status[i] = DONE;
    }
}

/* Cut boxes out of a plain image; they are best sorted by row, as those that lie close are read together. */
void absurd_gather(const Boxes *boxes) {
    Part image = {0, boxes->width, 0, boxes->height};
    int64_t row = boxes->width * boxes->item, rows = least(boxes->ny, boxes->height);
    int is_wide = row > LONG_ROW || 4 * rows * row > MOST_ROOM;
    int64_t room = is_wide ? 0 : most(STRIPE, 4 * rows * row); /* so that most of it is new each time */
    Window window = {is_wide ? NULL : malloc((size_t)room), 0, 0};
    if (!window.bytes) { /* or there is not enough memory, which this needs none of */
        for (int64_t i = 0; i < boxes->n; i++) {
            Part part = part_of(boxes, i, image);
            if (!is_empty(part)) boxes->status[i] = (int8_t)row_by_row(boxes, i, part);
        }
        return;
    }
    for (int64_t first = 0, last; first < boxes->n; first = last) {
        int64_t begin = INT64_MAX, end = 0;
        for (last = first; last < boxes->n; last++) {
            Part part = part_of(boxes, last, image);
            if (is_empty(part)) continue;
            int64_t low = least(begin, part.y0 * boxes->width + part.x0);
            int64_t high = most(end, (part.y1 - 1) * boxes->width + part.x1);
            if ((high - low) * boxes->item > room) break;
            begin = low, end = high;
        }
        if (end) stripe(boxes, first, last, begin, end, &window);
    }
    free(window.bytes);
}
