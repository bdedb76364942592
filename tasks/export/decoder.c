/* Rows of COPY BINARY into Arrow buffers, without Python.
 *
 * C11 and POSIX, with neither Python's nor libpq's headers: compiled.py calls this through ctypes, which leaves the
 * interpreter free meanwhile, and hands in the connection with the addresses of libpq's functions.  wire.py does the
 * same in numpy; for equal rows both give equal arrays.
 *
 * A row is an int16 with the number of its fields, then for each field an int32 with its length in bytes (-1: NULL)
 * and its bytes; all big-endian.  Nothing in the stream is trusted: each length is held against the bytes that are
 * there before it is used.  compiled.py mirrors the structures below; LAYOUT changes with them.
 */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <poll.h>
#include <time.h>

#include "columns.h"

enum { DATE_EPOCH = 10957, UUID_LENGTH = 36, MOST_DIMENSIONS = 6, LITTLE = 128 << 10 };
static const int64_t EPOCH = 946684800000000; /* 2000-01-01 in microseconds after 1970-01-01 */
static const int64_t DAY = 86400000000;
static const struct timespec NAP = {0, 300000};
static const uint8_t SIGNATURE[11] = "PGCOPY\n\377\r\n";

static uint16_t get16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }
static uint32_t get32(const uint8_t *p) { return (uint32_t)get16(p) << 16 | get16(p + 2); }
static uint64_t get64(const uint8_t *p) { return (uint64_t)get32(p) << 32 | get32(p + 4); }

static int append_unfit(struct block *block, struct column *column, int what)
{
    struct column *top = &block->all[column->top];
    if (top->unfit++ == 0) {
        top->what = what;
        top->unfit_row = block->first_row + block->rows;
    }
    return block->refuse ? UNFIT : append_null(block, column);
}

static int append_fixed(struct block *block, struct column *column, const uint8_t *p, int32_t length)
{
    (void)block;
    if (length != column->width)
        return DAMAGED;
    if (length == 8) {
        uint64_t value = get64(p);
        memcpy(column->data + 8 * column->count, &value, 8);
    } else if (length == 4) {
        uint32_t value = get32(p);
        memcpy(column->data + 4 * column->count, &value, 4);
    } else {
        uint16_t value = get16(p);
        memcpy(column->data + 2 * column->count, &value, 2);
    }
    count_valid(column);
    return MORE;
}

static int append_bool(struct column *column, const uint8_t *p, int32_t length)
{
    if (length != 1)
        return DAMAGED;
    put_bit(column->data, column->count, *p != 0);
    count_valid(column);
    return MORE;
}

static int append_date(struct block *block, struct column *column, const uint8_t *p, int32_t length)
{
    if (length != 4)
        return DAMAGED;
    int32_t days = (int32_t)get32(p);
    if (days == INT32_MAX || days == INT32_MIN)
        return append_unfit(block, column, days > 0 ? INFINITE : MINUS_INFINITE);
    if (days > INT32_MAX - DATE_EPOCH)
        return append_unfit(block, column, TOO_LATE);
    days += DATE_EPOCH;
    memcpy(column->data + 4 * column->count, &days, 4);
    count_valid(column);
    return MORE;
}

/* A time of day, or of all days. */
static int append_moment(struct block *block, struct column *column, const uint8_t *p, int32_t length)
{
    if (length != 8)
        return DAMAGED;
    int64_t value = (int64_t)get64(p);
    if (column->form == TIME) {
        if (value < 0 || value >= DAY)
            return append_unfit(block, column, MIDNIGHT);
    } else {
        if (value == INT64_MAX || value == INT64_MIN)
            return append_unfit(block, column, value > 0 ? INFINITE : MINUS_INFINITE);
        if (value > INT64_MAX - EPOCH)
            return append_unfit(block, column, TOO_LATE);
        value += EPOCH;
    }
    memcpy(column->data + 8 * column->count, &value, 8);
    count_valid(column);
    return MORE;
}

static int append_bytes(struct block *block, struct column *column, const uint8_t *p, int32_t length)
{
    if (reserve_bytes(block, column, length))
        return NO_MEMORY;
    memcpy(column->data + column->size, p, (size_t)length);
    column->size += length;
    column->offsets[column->count + 1] = (int32_t)column->size;
    count_valid(column);
    return MORE;
}

static int append_uuid(struct column *column, const uint8_t *p, int32_t length)
{
    if (length != 16)
        return DAMAGED;
    memcpy(column->data + 16 * column->count, p, 16);
    count_valid(column);
    return MORE;
}

static int append_uuid_text(struct block *block, struct column *column, const uint8_t *p, int32_t length)
{
    static const char digits[] = "0123456789abcdef";
    uint8_t text[UUID_LENGTH], *end = text;
    if (length != 16)
        return DAMAGED;
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *end++ = '-';
        *end++ = (uint8_t)digits[p[i] >> 4];
        *end++ = (uint8_t)digits[p[i] & 15];
    }
    return append_bytes(block, column, text, UUID_LENGTH);
}

/* Three parts: months, days and microseconds; PostgreSQL sends them the other way round. */
static int append_interval(struct block *block, struct column *column, const uint8_t *p, int32_t length)
{
    struct column *part = &block->all[column->child];
    if (length != 16)
        return DAMAGED;
    int64_t time = (int64_t)get64(p);
    int32_t days = (int32_t)get32(p + 8), months = (int32_t)get32(p + 12);
    if (months == INT32_MAX && days == INT32_MAX && time == INT64_MAX)
        return append_unfit(block, column, INFINITE);
    if (months == INT32_MIN && days == INT32_MIN && time == INT64_MIN)
        return append_unfit(block, column, MINUS_INFINITE);
    if (reserve(block, part) || reserve(block, part + 1) || reserve(block, part + 2))
        return NO_MEMORY;
    append_fixed(block, part, p + 12, 4);
    append_fixed(block, part + 1, p + 8, 4);
    append_fixed(block, part + 2, p, 8);
    count_valid(column);
    return MORE;
}

/* Decimals: digits to the base of 10,000, the first of them times 10,000 to the weight ----------------------------- */

struct number {
    uint32_t limb[LIMBS];
    int used;
};

/* number * factor + more; whether that still fits. */
static int multiply(struct number *number, uint32_t factor, uint32_t more)
{
    uint64_t carry = more;
    for (int i = 0; i < number->used; i++) {
        carry += (uint64_t)number->limb[i] * factor;
        number->limb[i] = (uint32_t)carry;
        carry >>= 32;
    }
    if (carry == 0)
        return 1;
    if (number->used == LIMBS)
        return 0;
    number->limb[number->used++] = (uint32_t)carry;
    return 1;
}

static int is_below(const uint32_t *number, const uint32_t *limit)
{
    for (int i = LIMBS - 1; i >= 0; i--)
        if (number[i] != limit[i])
            return number[i] < limit[i];
    return 0;
}

static void negate(uint32_t *number)
{
    uint64_t carry = 1;
    for (int i = 0; i < LIMBS; i++) {
        carry += (uint32_t)~number[i];
        number[i] = (uint32_t)carry;
        carry >>= 32;
    }
}

/* The digits before the last place of the scale into `number`; why they do not fit, or NO. */
static int collect(struct number *number, const uint8_t *p, int32_t digits, int32_t weight, int32_t scale)
{
    static const uint32_t powers[] = {1, 10, 100, 1000, 10000};
    int32_t last = weight + scale / 4, rest = scale % 4, place = 0;
    for (; place <= last; place++) /* whole groups of four; where there is none, its digits are noughts */
        if (!multiply(number, 10000, place < digits ? get16(p + 2 * place) : 0))
            return DIGITS;
    if (rest) {
        uint32_t group = place == last + 1 && place < digits ? get16(p + 2 * place++) : 0;
        if (group % powers[4 - rest])
            return DIGITS;
        if (!multiply(number, powers[rest], group / powers[4 - rest]))
            return DIGITS;
    }
    for (; place < digits; place++)
        if (get16(p + 2 * place))
            return DIGITS;
    return NO;
}

static int append_decimal(struct block *block, struct column *column, const uint8_t *p, int32_t length)
{
    struct number number = {{0}, 0};
    if (length < 8 || length != 8 + 2 * get16(p))
        return DAMAGED;
    int32_t digits = get16(p), weight = (int16_t)get16(p + 2), sign = get16(p + 4), what;
    for (int32_t i = 0; i < digits; i++)
        if (get16(p + 8 + 2 * i) > 9999)
            return DAMAGED;
    if (sign != 0 && sign != 0x4000) {
        if (sign != 0xc000 && sign != 0xd000 && sign != 0xf000)
            return DAMAGED;
        return append_unfit(block, column, sign == 0xc000 ? NOT_A_NUMBER : sign == 0xd000 ? INFINITE : MINUS_INFINITE);
    }
    what = digits ? collect(&number, p + 8, digits, weight, column->scale) : NO;
    if (what == NO && !is_below(number.limb, column->limit))
        what = DIGITS;
    if (what != NO)
        return append_unfit(block, column, what);
    if (sign)
        negate(number.limb);
    memcpy(column->data + column->count * column->width, number.limb, (size_t)column->width);
    count_valid(column);
    return MORE;
}

/* Arrays, rows and the stream ------------------------------------------------------------------------------------- */

static int append(struct block *block, struct column *column, const uint8_t *p, int32_t length);

/* A field at `p`, its length before it; moves `p` behind it. */
static inline int append_field(struct block *block, struct column *column, const uint8_t **p, const uint8_t *end)
{
    if (end - *p < 4)
        return DAMAGED;
    int32_t length = (int32_t)get32(*p);
    *p += 4;
    if (length == -1)
        return append_null(block, column);
    if (length < 0 || length > end - *p)
        return DAMAGED;
    const uint8_t *value = *p;
    *p += length;
    if (column->form == FIXED && length == column->width && column->count < column->capacity && column->nulls == 0) {
        if (length == 8) { /* most fields are like this: without the calls and questions of `append` */
            uint64_t bits = get64(value);
            memcpy(column->data + 8 * column->count++, &bits, 8);
            return MORE;
        }
        if (length == 4) {
            uint32_t bits = get32(value);
            memcpy(column->data + 4 * column->count++, &bits, 4);
            return MORE;
        }
    }
    return append(block, column, value, length);
}

/* Dimensions, a flag and the elements' type; for each dimension its length and first index; the elements. */
static int append_list(struct block *block, struct column *column, const uint8_t *p, int32_t length)
{
    struct column *elements = &block->all[column->child];
    const uint8_t *end = p + length;
    int status;
    if (length < 12)
        return DAMAGED;
    int32_t dimensions = (int32_t)get32(p), many = 0;
    if (dimensions < 0 || dimensions > MOST_DIMENSIONS || length < 12 + 8 * dimensions)
        return DAMAGED;
    if (dimensions > 1)
        return append_unfit(block, column, DIMENSIONS);
    if (dimensions == 1) {
        if (get32(p + 16) != 1)
            return append_unfit(block, column, LOWER_BOUND);
        many = (int32_t)get32(p + 12);
        if (many < 0)
            return DAMAGED;
    }
    p += 12 + 8 * dimensions;
    for (int32_t i = 0; i < many; i++)
        if ((status = append_field(block, elements, &p, end)) != MORE)
            return status;
    if (p != end)
        return DAMAGED;
    column->offsets[column->count + 1] = (int32_t)elements->count;
    count_valid(column);
    return MORE;
}

static int append(struct block *block, struct column *column, const uint8_t *p, int32_t length)
{
    if (reserve(block, column))
        return NO_MEMORY;
    switch (column->form) {
    case FIXED: return append_fixed(block, column, p, length);
    case BOOL: return append_bool(column, p, length);
    case DATE: return append_date(block, column, p, length);
    case TIME:
    case TIMESTAMP: return append_moment(block, column, p, length);
    case BYTES: return append_bytes(block, column, p, length);
    case JSONB: return length < 1 || *p != 1 ? DAMAGED : append_bytes(block, column, p + 1, length - 1);
    case UUID: return append_uuid(column, p, length);
    case UUID_TEXT: return append_uuid_text(block, column, p, length);
    case DECIMAL: return append_decimal(block, column, p, length);
    case INTERVAL: return append_interval(block, column, p, length);
    case LIST: return append_list(block, column, p, length);
    default: return DAMAGED;
    }
}

static int append_row(struct block *block, const uint8_t *p, int64_t length)
{
    const uint8_t *end = p + length;
    int status;
    block->error_column = -1;
    if (length < 2 || get16(p) != block->columns)
        return DAMAGED;
    p += 2;
    for (int32_t i = 0; i < block->columns; i++)
        if ((status = append_field(block, &block->all[i], &p, end)) != MORE) {
            block->error_column = i;
            return status;
        }
    if (p != end)
        return DAMAGED;
    block->rows++;
    block->wire += length;
    return MORE;
}

/* One message: a row, the mark of the end, or the stream's beginning, with which the first row comes along. */
static int take(struct block *block, struct stream *stream, const uint8_t *p, int64_t length)
{
    if (!stream->begun) {
        block->error_column = -1;
        if (length < 19 || memcmp(p, SIGNATURE, sizeof SIGNATURE) || get32(p + 11) || get32(p + 15) > length - 19)
            return DAMAGED;
        stream->begun = 1;
        int64_t header = 19 + (int64_t)get32(p + 15);
        p += header;
        length -= header;
        if (length == 0)
            return MORE;
    }
    return length == 2 && get16(p) == 0xffff ? MORE : append_row(block, p, length);
}

/* A server that is slower than this loop sends 8 KiB at a time, and waking up for each costs both sides more than the
 * bytes do.  So where little has come since the last time, more is let come; the system's buffers hold it. */
static int wait_for_data(struct stream *stream)
{
    struct pollfd wanted = {stream->socket, POLLIN, 0};
    if (*stream->stop)
        return STOPPED;
    if (stream->received - stream->waited_at < LITTLE)
        nanosleep(&NAP, NULL);
    stream->waited_at = stream->received;
    if (poll(&wanted, 1, 100) < 0 && errno != EINTR)
        return LOST;
    return stream->consume(stream->connection) ? MORE : LOST;
}

/* Public ---------------------------------------------------------------------------------------------------------- */

int absurd_layout(void) { return LAYOUT; }

/* Append rows until the block is full or the stream has to pause or is over. */
int absurd_fill(struct block *block, struct stream *stream)
{
    while (block->rows < block->most_rows && block->wire < block->most_wire) {
        char *message = NULL;
        if (stream->received >= stream->pause_at)
            return MORE;
        int length = stream->get(stream->connection, &message, 1);
        int status = length < 0 ? END : length == 0 ? wait_for_data(stream) : MORE;
        if (length > 0) {
            status = take(block, stream, (const uint8_t *)message, length);
            stream->received += length;
            stream->release(message);
        }
        if (status != MORE)
            return status;
    }
    return FULL;
}

/* Make a block empty, and keep its memory for the next rows. */
void absurd_reset(struct block *block)
{
    block->rows = block->wire = 0;
    for (int32_t i = 0; i < block->every; i++) {
        struct column *column = &block->all[i];
        column->count = column->nulls = column->size = column->unfit = 0;
    }
}

/* Give a new block the room that an earlier one came to need: a block that grows to it leaves holes in memory, as much
 * as it takes.  Without so much memory it grows as it goes. */
void absurd_prepare(struct block *block, const struct block *like)
{
    for (int32_t i = 0; i < block->every; i++) {
        struct column *column = &block->all[i];
        if (column->capacity < like->all[i].capacity && grow(block, column, like->all[i].capacity))
            return;
        if (like->all[i].room && reserve_bytes(block, column, like->all[i].room)) /* none: its values have a width */
            return;
    }
}

void absurd_free(struct block *block)
{
    for (int32_t i = 0; i < block->every; i++) {
        struct column *column = &block->all[i];
        free(column->valid);
        free(column->data);
        free(column->offsets);
        column->valid = column->data = NULL;
        column->offsets = NULL;
        column->capacity = column->room = 0;
    }
    block->held = 0;
}
