/* anchor: the root of a batch of receipts, once for each issuer, with when it was anchored. */
#include "event.h"
#include "instructions.h"

u64 anchor(const struct call *call) {
    TRY(require_shape(call, DIGEST_SIZE + 4, 3));
    const struct account *issuer = &call->accounts[0];
    const struct account *account = &call->accounts[1];
    const u8 *root = call->data;
    u32 count = load_u32(root + DIGEST_SIZE);
    struct clock clock;
    TRY(require_payer(issuer));
    TRY(require_system_program(&call->accounts[2]));
    REQUIRE(!zero_32(root), ZERO_DIGEST);
    REQUIRE(count != 0, EMPTY_BATCH);

    struct place place = {{TEXT_SEED("anchor"), {issuer->key, KEY_SIZE}, {root, DIGEST_SIZE}},
                          3,
                          sizeof(struct anchor),
                          ANCHOR,
                          0,
                          0};
    TRY(open_or_create(call, issuer, account, &place));
    REQUIRE(place.created, ALREADY_ANCHORED);
    TRY(sol_get_clock_sysvar(&clock));
    struct anchor *anchored = (struct anchor *)account->data;
    copy_32(anchored->issuer, issuer->key);
    copy_32(anchored->root, root);
    anchored->slot = clock.slot;
    anchored->time = clock.unix_timestamp;
    anchored->count = count;

    struct event event = event_begin(RECEIPTS_ANCHORED);
    event_digest(&event, issuer->key);
    event_digest(&event, root);
    event_u32(&event, count);
    event_emit(&event);
    return OK;
}
