/* Where the runtime enters: reads the call and hands it to the instruction that its tag names. */
#include "event.h"
#include "instructions.h"

_Static_assert(sizeof(struct call) <= 16384, "the call ends before the event buffer");

u64 entrypoint(u8 *input) {
    struct call *call = (struct call *)HEAP;
    TRY(read_call(input, call));
    REQUIRE(call->length != 0, UNKNOWN_INSTRUCTION);
    u8 tag = *call->data;
    call->data += 1;
    call->length -= 1;
    switch (tag) {
    case TAG_INITIALISE:
        return initialise(call);
    case TAG_REGISTER:
        return register_node(call);
    case TAG_DEPART:
        return depart(call);
    case TAG_PUBLISH:
        return publish(call);
    case TAG_CREATE_TASK:
        return create_task(call);
    case TAG_JOIN:
        return join(call);
    case TAG_START:
        return start(call);
    case TAG_RECORD_ROUND:
        return record_round(call);
    case TAG_OPEN_TALLY:
        return open_tally(call);
    case TAG_ADD_SIGNATURES:
        return add_signatures(call);
    case TAG_ATTEST:
        return attest(call);
    case TAG_FINALISE:
        return finalise(call);
    case TAG_CLOSE_TALLY:
        return close_tally(call);
    case TAG_CANCEL:
        return cancel(call);
    case TAG_ANCHOR:
        return anchor(call);
    default:
        return UNKNOWN_INSTRUCTION;
    }
}
