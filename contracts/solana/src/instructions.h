/* Every instruction of the program, by tag: docs/solana.md, "Instructions". */
#ifndef TWOPM_INSTRUCTIONS_H
#define TWOPM_INSTRUCTIONS_H

#include "account.h"

enum tag {
    TAG_INITIALISE = 0,
    TAG_REGISTER = 1,
    TAG_DEPART = 2,
    TAG_PUBLISH = 3,
    TAG_CREATE_TASK = 4,
    TAG_JOIN = 5,
    TAG_START = 6,
    TAG_RECORD_ROUND = 7,
    TAG_OPEN_TALLY = 8,
    TAG_ADD_SIGNATURES = 9,
    TAG_ATTEST = 10,
    TAG_FINALISE = 11,
    TAG_CLOSE_TALLY = 12,
    TAG_CANCEL = 13,
    TAG_ANCHOR = 14,
};

/* config.c */
u64 initialise(const struct call *call);

/* node.c */
u64 register_node(const struct call *call);
u64 depart(const struct call *call);
u64 require_node(const struct call *call, const struct account *account, const u8 *address,
                 const struct node **node);

/* dataset.c */
u64 publish(const struct call *call);

/* What a round's record says. */
struct record {
    u32 round;
    u32 attempt;
    const u8 *manifest_digest;
    const u8 *updates_root;
};

/* task.c */
u64 create_task(const struct call *call);
u64 start(const struct call *call);
u64 record_round(const struct call *call);
u64 cancel(const struct call *call);
u64 require_task(const struct call *call, const struct account *coordinator,
                 const struct account *account, struct task **task);
void next_head(const u8 *previous, const u8 *task_id, const struct record *record, u8 *head);

/* member.c */
u64 join(const struct call *call);

/* tally.c */
u64 open_tally(const struct call *call);
u64 add_signatures(const struct call *call);
u64 attest(const struct call *call);
u64 finalise(const struct call *call);
u64 close_tally(const struct call *call);

/* anchor.c */
u64 anchor(const struct call *call);

#endif
