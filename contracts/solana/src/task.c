/* create_task, start, record_round and cancel: a task's life and its chain of records.
 *
 * Open -> Running -> Finalised, or from Open or Running to Cancelled; nothing ever leaves
 * Finalised or Cancelled.
 */
#include "event.h"
#include "instructions.h"
#include "typed_data.h"

INLINE struct place task_place(const u8 *task_id) {
    return (struct place){
        {TEXT_SEED("task"), {task_id, DIGEST_SIZE}}, 2, sizeof(struct task), TASK, 0, 0};
}

u64 require_task(const struct call *call, const struct account *coordinator,
                 const struct account *account, struct task **task) {
    TRY(require_signer(coordinator));
    if (is_absent(account)) {
        return UNKNOWN_TASK;
    }
    TRY(require_kind(call, account, TASK, sizeof(struct task)));
    *task = (struct task *)account->data;
    struct place place = task_place((*task)->task_id);
    TRY(require_at(call, account, &place));
    return equal_32((*task)->coordinator, coordinator->key) ? OK : NOT_COORDINATOR;
}

void next_head(const u8 *previous, const u8 *task_id, const struct record *record, u8 *head) {
    u8 words[6 * WORD];
    copy_32(words, previous);
    copy_32(words + WORD, task_id);
    word_u64(words + 2 * WORD, record->round);
    word_u64(words + 3 * WORD, record->attempt);
    copy_32(words + 4 * WORD, record->manifest_digest);
    copy_32(words + 5 * WORD, record->updates_root);
    keccak(words, sizeof(words), head);
}

static void task_id_of(const struct call *call, u64 chain_id, const u8 *coordinator, u64 count,
                       u8 *task_id) {
    u8 chain_bytes[8];
    u8 count_bytes[8];
    store_u64(chain_bytes, big_endian(chain_id));
    store_u64(count_bytes, big_endian(count));
    struct slice parts[5] = {TEXT_SEED("twopm-flower/solana/task/v1"),
                             {chain_bytes, sizeof(chain_bytes)},
                             {call->program_id, KEY_SIZE},
                             {coordinator, KEY_SIZE},
                             {count_bytes, sizeof(count_bytes)}};
    sol_keccak256(parts, 5, task_id);
}

u64 create_task(const struct call *call) {
    TRY(require_shape(call, DIGEST_SIZE + 16, 5));
    const struct account *payer = &call->accounts[0];
    const struct account *counter = &call->accounts[2];
    const struct account *account = &call->accounts[3];
    const u8 *terms_digest = call->data;
    u32 rounds = load_u32(terms_digest + DIGEST_SIZE);
    u16 min_contributors = load_u16(terms_digest + DIGEST_SIZE + 4);
    u16 quorum = load_u16(terms_digest + DIGEST_SIZE + 6);
    u64 max_samples = load_u64(terms_digest + DIGEST_SIZE + 8);
    const struct config *config;
    TRY(require_payer(payer));
    TRY(require_config(call, &call->accounts[1], &config));
    TRY(require_system_program(&call->accounts[4]));
    TRY(require_writable(account));
    REQUIRE(!zero_32(terms_digest) && rounds != 0 && min_contributors >= 2 && quorum != 0 &&
                max_samples != 0,
            BAD_TERMS);

    struct place counter_place = {{TEXT_SEED("coordinator"), {payer->key, KEY_SIZE}},
                                  2,
                                  sizeof(struct coordinator),
                                  COORDINATOR,
                                  0,
                                  0};
    TRY(open_or_create(call, payer, counter, &counter_place));
    struct coordinator *coordinator = (struct coordinator *)counter->data;
    REQUIRE(coordinator->count != ~0UL, OVERFLOW);
    copy_32(coordinator->key, payer->key);

    u8 task_id[DIGEST_SIZE];
    task_id_of(call, config->chain_id, payer->key, coordinator->count, task_id);
    struct place place = task_place(task_id);
    TRY(require_free_at(call, account, &place));
    TRY(create(call, payer, account, &place));
    coordinator->count += 1;

    struct task *task = (struct task *)account->data;
    copy_32(task->task_id, task_id);
    copy_32(task->coordinator, payer->key);
    copy_32(task->terms_digest, terms_digest);
    task->max_samples = max_samples;
    task->rounds = rounds;
    task->min_contributors = min_contributors;
    task->quorum = quorum;
    task->state = OPEN;

    struct event event = event_begin(TASK_CREATED);
    event_digest(&event, task_id);
    event_digest(&event, payer->key);
    event_digest(&event, terms_digest);
    event_u32(&event, rounds);
    event_u16(&event, min_contributors);
    event_u16(&event, quorum);
    event_u64(&event, max_samples);
    event_emit(&event);
    return OK;
}

u64 start(const struct call *call) {
    TRY(require_shape(call, 0, 2));
    struct task *task;
    TRY(require_task(call, &call->accounts[0], &call->accounts[1], &task));
    TRY(require_writable(&call->accounts[1]));
    REQUIRE(task->state == OPEN, WRONG_STATE);
    u16 needed = task->min_contributors > task->quorum ? task->min_contributors : task->quorum;
    REQUIRE(task->members >= needed, TOO_FEW_MEMBERS);
    task->state = RUNNING;

    struct event event = event_begin(TASK_STARTED);
    event_digest(&event, task->task_id);
    event_digest(&event, task->roster_digest);
    event_u32(&event, task->members);
    event_emit(&event);
    return OK;
}

u64 record_round(const struct call *call) {
    TRY(require_shape(call, 8 + 2 * DIGEST_SIZE, 2));
    struct record record = {load_u32(call->data), load_u32(call->data + 4), call->data + 8,
                            call->data + 8 + DIGEST_SIZE};
    struct task *task;
    u8 head[DIGEST_SIZE];
    TRY(require_task(call, &call->accounts[0], &call->accounts[1], &task));
    TRY(require_writable(&call->accounts[1]));
    REQUIRE(task->state == RUNNING, WRONG_STATE);
    REQUIRE(!zero_32(record.manifest_digest) && !zero_32(record.updates_root), ZERO_DIGEST);
    REQUIRE(record.round <= task->rounds, TOO_MANY_ROUNDS);
    int same_round = record.round != 0 && record.round == task->last_round;
    if (same_round && record.attempt == task->last_attempt) {
        next_head(task->previous_head, task->task_id, &record, head);
        return equal_32(head, task->head) ? ALREADY_RECORDED : OUT_OF_ORDER;
    }
    int follows = record.attempt != 0 && (u64)record.round == (u64)task->last_round + 1;
    int supersedes = same_round && record.attempt > task->last_attempt;
    REQUIRE(follows || supersedes, OUT_OF_ORDER);

    next_head(task->head, task->task_id, &record, head);
    copy_32(task->previous_head, task->head);
    copy_32(task->head, head);
    task->last_round = record.round;
    task->last_attempt = record.attempt;

    struct event event = event_begin(ROUND_RECORDED);
    event_digest(&event, task->task_id);
    event_u32(&event, record.round);
    event_u32(&event, record.attempt);
    event_digest(&event, record.manifest_digest);
    event_digest(&event, record.updates_root);
    event_digest(&event, head);
    event_emit(&event);
    return OK;
}

u64 cancel(const struct call *call) {
    REQUIRE(call->length >= 2, WRONG_DATA_LENGTH);
    u16 length = load_u16(call->data);
    REQUIRE(length <= MAX_REASON, REASON_TOO_LONG);
    TRY(require_shape(call, 2 + (u64)length, 2));
    struct task *task;
    TRY(require_task(call, &call->accounts[0], &call->accounts[1], &task));
    TRY(require_writable(&call->accounts[1]));
    REQUIRE(task->state == OPEN || task->state == RUNNING, WRONG_STATE);
    task->state = CANCELLED;

    struct event event = event_begin(TASK_CANCELLED);
    event_digest(&event, task->task_id);
    event_text(&event, call->data + 2, length);
    event_emit(&event);
    return OK;
}
