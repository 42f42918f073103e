/* Checks, creates and closes accounts; see account.h. */
#include "account.h"

enum {
    NOT_A_DUPLICATE = 0xff,
    RESIZE_ROOM = 10240, /* what the runtime keeps free behind the data of each account */
    RENT_OVERHEAD = 128, /* bytes that rent counts beside an account's data */
};

enum { SYSTEM_ASSIGN = 1, SYSTEM_TRANSFER = 2, SYSTEM_ALLOCATE = 8 };

static const u8 system_program[KEY_SIZE] = {0};

/* Serialised: marker, signer, writable, executable, 4 bytes; key; owner; lamports; length; data;
 * room to resize; filled up to 8 bytes; rent epoch. A repeated account is its index, 8 bytes. */
static const u8 *read_account(u8 *input, struct account *account) {
    account->signer = input[1];
    account->writable = input[2];
    account->executable = input[3];
    account->key = input + 8;
    account->owner = input + 40;
    account->lamports = (u64 *)(input + 72);
    account->data = input + 88;
    u8 *end = account->data + load_u64(input + 80) + RESIZE_ROOM;
    end = (u8 *)(((u64)end + 7) & ~7UL);
    account->rent_epoch = load_u64(end);
    return end + 8;
}

u64 read_call(u8 *input, struct call *call) {
    u64 count = load_u64(input);
    REQUIRE(count <= MAX_ACCOUNTS, WRONG_ACCOUNT_COUNT);
    u8 *next = input + 8;
    for (u64 i = 0; i < count; ++i) {
        if (*next == NOT_A_DUPLICATE) {
            next = (u8 *)read_account(next, &call->accounts[i]);
        } else {
            /* The runtime only ever names an account before this one. */
            REQUIRE(*next < i, WRONG_ACCOUNT_COUNT);
            call->accounts[i] = call->accounts[*next];
            next += 8;
        }
    }
    call->account_count = count;
    call->length = load_u64(next);
    call->data = next + 8;
    call->program_id = call->data + call->length;
    return OK;
}

u64 require_shape(const struct call *call, u64 length, u64 account_count) {
    REQUIRE(call->length == length, WRONG_DATA_LENGTH);
    REQUIRE(call->account_count == account_count, WRONG_ACCOUNT_COUNT);
    return OK;
}

u64 require_signer(const struct account *account) {
    return account->signer ? OK : MISSING_SIGNER;
}

u64 require_writable(const struct account *account) {
    return account->writable ? OK : NOT_WRITABLE;
}

u64 require_payer(const struct account *account) {
    TRY(require_signer(account));
    return require_writable(account);
}

u64 require_system_program(const struct account *account) {
    return equal_32(account->key, system_program) ? OK : WRONG_SYSTEM_PROGRAM;
}

int is_absent(const struct account *account) {
    return equal_32(account->owner, system_program) && account_length(account) == 0;
}

u64 require_kind(const struct call *call, const struct account *account, u8 kind, u64 length) {
    REQUIRE(equal_32(account->owner, call->program_id), WRONG_OWNER);
    const struct header *header = (const struct header *)account->data;
    /* A tally is longer than its fixed fields; its creator alone decided by how much. */
    u64 actual = account_length(account);
    REQUIRE(kind == TALLY ? actual >= length : actual == length, WRONG_ACCOUNT_KIND);
    REQUIRE(header->kind == kind && header->version == LAYOUT_VERSION, WRONG_ACCOUNT_KIND);
    return OK;
}

u64 require_at(const struct call *call, const struct account *account, struct place *place) {
    TRY(require_kind(call, account, place->kind, place->length));
    u8 address[KEY_SIZE];
    place->bump = ((const struct header *)account->data)->bump;
    place->seeds[place->seed_count] = (struct slice){&place->bump, 1};
    u64 failed = sol_create_program_address(place->seeds, place->seed_count + 1,
                                            call->program_id, address);
    return !failed && equal_32(address, account->key) ? OK : WRONG_ADDRESS;
}

u64 require_free_at(const struct call *call, const struct account *account, struct place *place) {
    u8 address[KEY_SIZE];
    u64 failed = sol_try_find_program_address(place->seeds, place->seed_count, call->program_id,
                                              address, &place->bump);
    REQUIRE(!failed && equal_32(address, account->key), WRONG_ADDRESS);
    return is_absent(account) ? OK : WRONG_OWNER;
}

/* What the cluster wants to see in an account of a length, for ever. The threshold counts years
 * and is a floating-point number: 2 on today's clusters, 1 where SIMD-0194 is active. */
static u64 rent_of(u64 length, u64 *lamports) {
    struct rent rent;
    REQUIRE(sol_get_rent_sysvar(&rent) == 0, UNSUPPORTED_RENT);
    u64 exponent = rent.exemption_threshold >> 52;
    u64 fraction = rent.exemption_threshold << 12;
    REQUIRE(fraction == 0 && (exponent == 0x3ff || exponent == 0x400), UNSUPPORTED_RENT);
    u64 bytes = (length + RENT_OVERHEAD) << (exponent - 0x3ff);
    REQUIRE(rent.lamports_per_byte >> 40 == 0, UNSUPPORTED_RENT);
    *lamports = bytes * rent.lamports_per_byte;
    return OK;
}

static struct account_info info_of(const struct account *account) {
    return (struct account_info){
        account->key,   account->lamports,   account_length(account), account->data,
        account->owner, account->rent_epoch, account->signer,         account->writable,
        account->executable};
}

/* Calls the system program on the account at a place, with a payer before it where there is one. */
static u64 call_system(const struct slice *data, const struct account *payer,
                       const struct account *account, const struct place *place) {
    struct account_info infos[2] = {info_of(account), info_of(account)};
    struct account_meta metas[2] = {{account->key, 1, 1}, {account->key, 1, 0}};
    struct instruction instruction = {system_program, metas, 1, data->start, data->length};
    struct signer_seeds signer = {place->seeds, place->seed_count + 1};
    if (payer) {
        infos[0] = info_of(payer);
        metas[0].key = payer->key;
        instruction.account_count = 2;
    }
    return sol_invoke_signed_c(&instruction, infos, 2, &signer, 1);
}

u64 create(const struct call *call, const struct account *payer, const struct account *account,
           struct place *place) {
    u64 lamports;
    u8 data[4 + KEY_SIZE];
    struct slice amount = {data, 4 + 8};
    struct slice owner = {data, 4 + KEY_SIZE};
    place->seeds[place->seed_count] = (struct slice){&place->bump, 1};

    /* Anybody may have sent lamports to the address before: the system program's CreateAccount
     * would refuse it then, its three steps one by one do not. */
    TRY(rent_of(place->length, &lamports));
    if (*account->lamports < lamports) {
        store_u32(data, SYSTEM_TRANSFER);
        store_u64(data + 4, lamports - *account->lamports);
        TRY(call_system(&amount, payer, account, place));
    }
    store_u32(data, SYSTEM_ALLOCATE);
    store_u64(data + 4, place->length);
    TRY(call_system(&amount, 0, account, place));
    store_u32(data, SYSTEM_ASSIGN);
    copy_32(data + 4, call->program_id);
    TRY(call_system(&owner, 0, account, place));

    struct header *header = (struct header *)account->data;
    header->kind = place->kind;
    header->version = LAYOUT_VERSION;
    header->bump = place->bump;
    return OK;
}

u64 open_or_create(const struct call *call, const struct account *payer,
                   const struct account *account, struct place *place) {
    TRY(require_writable(account));
    place->created = (u8)is_absent(account);
    if (!place->created) {
        return require_at(call, account, place);
    }
    TRY(require_free_at(call, account, place));
    return create(call, payer, account, place);
}

u64 close(const struct account *account, const struct account *receiver) {
    REQUIRE(*account->lamports <= ~*receiver->lamports, OVERFLOW);
    *receiver->lamports += *account->lamports;
    *account->lamports = 0;
    /* Empty and the system program's own again: nothing can revive it in the same transaction. */
    store_u64(account->data, 0);
    store_u64(account->data - 8, 0);
    copy_32((u8 *)account->owner, system_program);
    return OK;
}

u64 require_config(const struct call *call, const struct account *account,
                   const struct config **config) {
    struct place place = config_place();
    if (is_absent(account)) {
        TRY(require_free_at(call, account, &place));
        return NOT_INITIALISED;
    }
    TRY(require_at(call, account, &place));
    *config = (const struct config *)account->data;
    return OK;
}
