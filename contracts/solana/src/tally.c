/* open_tally, add_signatures, attest, finalise, close_tally: the members' word on a model.
 *
 * A transaction is too small for the signatures of a large quorum, so they are counted in an
 * account of their own, one bit for each member, and the count is used when it is complete.
 */
#include "event.h"
#include "instructions.h"
#include "typed_data.h"

INLINE struct place tally_place(const u8 *digest, u64 length) {
    return (struct place){{TEXT_SEED("tally"), {digest, DIGEST_SIZE}}, 2, length, TALLY, 0, 0};
}

/* A tally of this task, for its head as it stands where `current` is asked for. */
static u64 require_tally(const struct call *call, const struct account *account,
                         const struct task *task, int current, struct tally **tally) {
    if (is_absent(account)) {
        return UNKNOWN_TALLY;
    }
    TRY(require_kind(call, account, TALLY, sizeof(struct tally)));
    *tally = (struct tally *)account->data;
    struct place place = tally_place((*tally)->statement_digest, sizeof(struct tally));
    TRY(require_at(call, account, &place));
    REQUIRE(equal_32((*tally)->task_id, task->task_id), STALE_TALLY);
    REQUIRE(!current || equal_32((*tally)->head, task->head), STALE_TALLY);
    return OK;
}

u64 open_tally(const struct call *call) {
    TRY(require_shape(call, 4 * DIGEST_SIZE, 5));
    const struct account *payer = &call->accounts[0];
    const struct account *account = &call->accounts[3];
    const u8 *manifest_digest = call->data;
    const u8 *updates_root = manifest_digest + DIGEST_SIZE;
    const u8 *model_digest = updates_root + DIGEST_SIZE;
    const u8 *metrics_digest = model_digest + DIGEST_SIZE;
    const struct config *config;
    struct task *task;
    TRY(require_payer(payer));
    TRY(require_config(call, &call->accounts[1], &config));
    TRY(require_task(call, payer, &call->accounts[2], &task));
    TRY(require_system_program(&call->accounts[4]));
    REQUIRE(task->state == RUNNING, WRONG_STATE);
    REQUIRE(!zero_32(model_digest) && !zero_32(metrics_digest), ZERO_DIGEST);
    u8 head[DIGEST_SIZE];
    struct record record = {task->last_round, task->last_attempt, manifest_digest, updates_root};
    next_head(task->previous_head, task->task_id, &record, head);
    REQUIRE(equal_32(head, task->head), HEAD_MISMATCH);

    u8 words[6 * WORD];
    u8 digest[DIGEST_SIZE];
    TYPE_HASH("ModelStatement(bytes32 taskId,uint32 round,bytes32 manifestDigest,"
              "bytes32 modelDigest,bytes32 metricsDigest)",
              words);
    copy_32(words + WORD, task->task_id);
    word_u64(words + 2 * WORD, task->last_round);
    copy_32(words + 3 * WORD, manifest_digest);
    copy_32(words + 4 * WORD, model_digest);
    copy_32(words + 5 * WORD, metrics_digest);
    statement_digest(config->task_domain, words, 6, digest);

    if (!is_absent(account)) {
        /* The same statement for another head: an attempt that a later one superseded. */
        struct tally *opened;
        TRY(require_tally(call, account, task, 1, &opened));
        return equal_32(opened->statement_digest, digest) ? OK : WRONG_ADDRESS;
    }
    struct place place = tally_place(digest, tally_length(task->members));
    TRY(open_or_create(call, payer, account, &place));
    struct tally *tally = (struct tally *)account->data;
    copy_32(tally->statement_digest, digest);
    copy_32(tally->task_id, task->task_id);
    copy_32(tally->head, head);
    copy_32(tally->manifest_digest, manifest_digest);
    copy_32(tally->model_digest, model_digest);
    copy_32(tally->metrics_digest, metrics_digest);
    tally->round = task->last_round;
    return OK;
}

/* Counts one member's signature, once. */
static u64 count_signature(const struct call *call, u64 index, u8 *previous) {
    const struct account *account = &call->accounts[3 + index];
    const u8 *signature = call->data + 1 + index * SIGNATURE_SIZE;
    struct tally *tally = (struct tally *)call->accounts[2].data;
    u64 bitmap_size = account_length(&call->accounts[2]) - sizeof(struct tally);
    u8 signer[ADDRESS_SIZE];
    TRY(recover(tally->statement_digest, signature, signer));
    REQUIRE(larger(signer, previous, ADDRESS_SIZE), SIGNERS_NOT_INCREASING);
    copy_20(previous, signer);

    if (is_absent(account)) {
        return NOT_MEMBER;
    }
    TRY(require_kind(call, account, MEMBER, sizeof(struct member)));
    const struct member *member = (const struct member *)account->data;
    /* The fields alone say whose it is; the address says that they are what `join` wrote. */
    REQUIRE(equal_20(member->node, signer) && equal_32(member->task_id, tally->task_id),
            NOT_MEMBER);
    struct place place = {
        {TEXT_SEED("member"), {tally->task_id, DIGEST_SIZE}, {signer, ADDRESS_SIZE}},
        3,
        sizeof(struct member),
        MEMBER,
        0,
        0};
    TRY(require_at(call, account, &place));
    REQUIRE(member->samples != 0, NOT_MEMBER);
    REQUIRE(member->index / 8 < bitmap_size, OVERFLOW);

    u8 *byte = &tally->bitmap[member->index / 8];
    u8 bit = (u8)(1 << (member->index % 8));
    if (!(*byte & bit)) {
        *byte |= bit;
        tally->signers += 1;
    }
    return OK;
}

u64 add_signatures(const struct call *call) {
    REQUIRE(call->length >= 1, WRONG_DATA_LENGTH);
    u64 count = call->data[0];
    REQUIRE(count >= 1 && count <= MAX_SIGNATURES, WRONG_DATA_LENGTH);
    TRY(require_shape(call, 1 + count * SIGNATURE_SIZE, 3 + count));
    const struct account *account = &call->accounts[2];
    struct task *task;
    struct tally *tally;
    TRY(require_task(call, &call->accounts[0], &call->accounts[1], &task));
    TRY(require_writable(account));
    TRY(require_tally(call, account, task, 1, &tally));
    REQUIRE(task->state == RUNNING, WRONG_STATE);

    u8 previous[ADDRESS_SIZE] = {0};
    for (u64 i = 0; i < count; ++i) {
        TRY(count_signature(call, i, previous));
    }
    return OK;
}

/* A running task and a tally for its head that reached its quorum. */
static u64 require_quorum(const struct call *call, struct task **task, struct tally **tally) {
    TRY(require_shape(call, 0, 3));
    TRY(require_task(call, &call->accounts[0], &call->accounts[1], task));
    REQUIRE((*task)->state == RUNNING, WRONG_STATE);
    TRY(require_tally(call, &call->accounts[2], *task, 1, tally));
    return (*tally)->signers >= (*task)->quorum ? OK : QUORUM_MISSED;
}

u64 attest(const struct call *call) {
    struct task *task;
    struct tally *tally;
    TRY(require_quorum(call, &task, &tally));

    struct event event = event_begin(MODEL_ATTESTED);
    event_digest(&event, task->task_id);
    event_u32(&event, tally->round);
    event_digest(&event, tally->manifest_digest);
    event_digest(&event, tally->model_digest);
    event_digest(&event, tally->metrics_digest);
    event_u32(&event, tally->signers);
    event_emit(&event);
    return OK;
}

u64 finalise(const struct call *call) {
    struct task *task;
    struct tally *tally;
    TRY(require_quorum(call, &task, &tally));
    TRY(require_writable(&call->accounts[0]));
    TRY(require_writable(&call->accounts[1]));
    TRY(require_writable(&call->accounts[2]));
    REQUIRE(task->last_round == task->rounds, ROUNDS_MISSING);
    task->state = FINALISED;
    copy_32(task->model_digest, tally->model_digest);

    struct event event = event_begin(TASK_FINALISED);
    event_digest(&event, task->task_id);
    event_digest(&event, tally->model_digest);
    event_digest(&event, tally->metrics_digest);
    event_digest(&event, task->head);
    event_u32(&event, tally->signers);
    event_emit(&event);
    return close(&call->accounts[2], &call->accounts[0]);
}

u64 close_tally(const struct call *call) {
    TRY(require_shape(call, 0, 3));
    struct task *task;
    struct tally *tally;
    TRY(require_task(call, &call->accounts[0], &call->accounts[1], &task));
    TRY(require_writable(&call->accounts[0]));
    TRY(require_writable(&call->accounts[2]));
    TRY(require_tally(call, &call->accounts[2], task, 0, &tally));
    return close(&call->accounts[2], &call->accounts[0]);
}
