/* Events: one field of the program's log, a tag, a version and the values in order.
 *
 * An event is written into the heap, which nothing else uses behind the accounts.
 */
#ifndef TWOPM_EVENT_H
#define TWOPM_EVENT_H

#include "memory.h"

enum event_tag {
    INITIALISED = 0,
    NODE_REGISTERED = 1,
    NODE_LEFT = 2,
    DATA_PUBLISHED = 3,
    TASK_CREATED = 4,
    MEMBER_JOINED = 5,
    TASK_STARTED = 6,
    ROUND_RECORDED = 7,
    MODEL_ATTESTED = 8,
    TASK_FINALISED = 9,
    TASK_CANCELLED = 10,
    RECEIPTS_ANCHORED = 11,
};

enum { EVENT_VERSION = 1 };

#define HEAP ((u8 *)0x300000000UL)
#define EVENT_BUFFER (HEAP + 16384)

struct event {
    u8 *end;
};

INLINE struct event event_begin(u8 tag) {
    EVENT_BUFFER[0] = tag;
    EVENT_BUFFER[1] = EVENT_VERSION;
    return (struct event){EVENT_BUFFER + 2};
}

INLINE void event_u16(struct event *event, u16 value) {
    store_u16(event->end, value);
    event->end += 2;
}

INLINE void event_u32(struct event *event, u32 value) {
    store_u32(event->end, value);
    event->end += 4;
}

INLINE void event_u64(struct event *event, u64 value) {
    store_u64(event->end, value);
    event->end += 8;
}

INLINE void event_digest(struct event *event, const u8 *digest) {
    copy_32(event->end, digest);
    event->end += DIGEST_SIZE;
}

INLINE void event_address(struct event *event, const u8 *address) {
    copy_20(event->end, address);
    event->end += ADDRESS_SIZE;
}

INLINE void event_text(struct event *event, const u8 *text, u16 length) {
    event_u16(event, length);
    for (u16 i = 0; i < length; ++i) {
        event->end[i] = text[i];
    }
    event->end += length;
}

INLINE void event_emit(const struct event *event) {
    struct slice field = {EVENT_BUFFER, (u64)(event->end - EVENT_BUFFER)};
    sol_log_data(&field, 1);
}

#endif
