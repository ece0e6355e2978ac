// SPDX-License-Identifier: MIT
// Page protections (U/S, R/W, NX, WP, SMEP, SMAP), what user mode may not do (privileged instructions, UMIP,
// TSD), SYSCALL and SYSRET, and translations that MOV to CR3, CR4 and INVLPG drop.
#include "lib/checks.hpp"
#include "lib/cpu.hpp"
#include "lib/interrupts.hpp"
#include "lib/runtime.hpp"

#include <cstring>
#include <initializer_list>

extern "C" {
extern std::uint64_t page_map_level4[512];
extern const char user_return[];
extern const char syscall_entry[];
std::uint64_t user_kernel_rsp;
std::uint64_t syscall_count;
}

// SYSCALL's handler counts and goes back; SYSRET takes RCX and R11 as SYSCALL left them.
asm(".globl syscall_entry\n"
    "syscall_entry: incq syscall_count\n"
    "sysretq\n");

using namespace payload;

namespace {

constexpr std::uint8_t kInvalidOpcode = 6, kGeneralProtection = 13, kPageFault = 14;
constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kPresent = 1, kWritable = 2, kUser = 4, kGlobal = 1 << 8;
constexpr std::uint64_t kNoExecute = std::uint64_t{1} << 63;
constexpr std::uint32_t kEfer = 0xc000'0080;
constexpr std::uint64_t kSce = 1, kNxe = 1 << 11;
constexpr std::uint64_t kWriteProtect = 1 << 16;
constexpr std::uint64_t kTsd = 1 << 2, kPge = 1 << 7, kUmip = 1 << 11, kSmep = 1 << 20, kSmap = 1 << 21;
/// A window of 4 KiB pages with rights of their own: the second entry of the PML4.
constexpr std::uint64_t kWindow = std::uint64_t{1} << 39;

alignas(kPage) std::uint64_t pointers[512], directory[512], table[512];
alignas(kPage) std::uint8_t frames[8][kPage];

constexpr std::uint64_t window(unsigned page) {
    return kWindow + page * kPage;
}
void invlpg(std::uint64_t address) {
    asm volatile("invlpg (%0)" : : "r"(address) : "memory");
}
/// Page `page` of the window shows frames[frame].
void map(unsigned page, unsigned frame, std::uint64_t rights) {
    table[page] = reinterpret_cast<std::uint64_t>(frames[frame]) | kPresent | rights;
}
void map_now(unsigned page, unsigned frame, std::uint64_t rights) {
    map(page, frame, rights);
    invlpg(window(page));
}
std::uint64_t read_cr0() {
    std::uint64_t value;
    asm volatile("movq %%cr0, %0" : "=r"(value));
    return value;
}
std::uint64_t read_cr4() {
    std::uint64_t value;
    asm volatile("movq %%cr4, %0" : "=r"(value));
    return value;
}
void write_cr0(std::uint64_t value) {
    asm volatile("movq %0, %%cr0" : : "r"(value) : "memory");
}
void write_cr4(std::uint64_t value) {
    asm volatile("movq %0, %%cr4" : : "r"(value) : "memory");
}

/// For #PF: 0x100 | its error code; else the vector or kNoFault.
constexpr int page_fault(std::uint64_t error_code) {
    return static_cast<int>(0x100 | error_code);
}
int outcome() {
    return fault() == kPageFault ? page_fault(fault_error_code()) : fault();
}
int try_read(std::uint64_t address) {
    std::uint8_t value = 0;
    TRY_INSTRUCTION("movb (%1), %0", "=q"(value), "r"(address));
    return outcome();
}
int try_write(std::uint64_t address) {
    TRY_INSTRUCTION("movb $0x5a, (%0)", EMPTY, "r"(address));
    return outcome();
}
/// Jumps to code that is JMP RCX.
int try_execute(std::uint64_t address) {
    std::uint64_t back = 0;
    TRY_INSTRUCTION("leaq 2f(%%rip), %%rcx; jmp *%1; 2:", "=&c"(back), "r"(address));
    return outcome();
}

// --- user mode -------------------------------------------------------------------------------------------

constexpr unsigned kCode = 0, kStack = 1;
constexpr std::uint16_t kKernelCode = 0x10, kKernelData = 0x18, kTask = 0x30;
std::uint64_t user_error_code, user_rip;
alignas(16) std::uint8_t exception_stack[8192];

struct [[gnu::packed]] Task {
    std::uint32_t reserved0;
    std::uint64_t rsp0;
    std::uint8_t others[90];
    std::uint16_t io_map_base;  ///< beyond the end: there is none, user mode has no ports
} task;
static_assert(sizeof(Task) == 104);

struct [[gnu::packed]] TablePointer {
    std::uint16_t limit;
    std::uint64_t base;
};

/// As start.S has them, with user segments, in SYSRET's order, and a TSS.
std::uint64_t gdt[8] = {0,
                        0x00cf'9b00'0000'ffff,
                        0x00af'9b00'0000'ffff,
                        0x00cf'9300'0000'ffff,
                        0x00cf'f300'0000'ffff,
                        0x00af'fb00'0000'ffff,
                        0,
                        0};

void on_user_exception(Frame& frame) {
    if ((frame.cs & 3) == 0) {
        print("FAILED: vector %lu in the kernel, error code 0x%lx, rip 0x%lx\n", frame.vector,
              frame.error_code, frame.rip);
        finish(2);
    }
    user_error_code = frame.error_code;
    user_rip = frame.rip;
    frame.rax = frame.vector;
    frame.rip = reinterpret_cast<std::uint64_t>(user_return);
    frame.cs = kKernelCode;
    frame.ss = kKernelData;
    frame.rsp = user_kernel_rsp;
    frame.rflags = 2;
}

void prepare_user_mode() {
    task.rsp0 = reinterpret_cast<std::uint64_t>(exception_stack) + sizeof exception_stack;
    task.io_map_base = sizeof task;
    const auto base = reinterpret_cast<std::uint64_t>(&task);
    gdt[6] =
        (sizeof task - 1) | (base & 0xff'ffff) << 16 | std::uint64_t{0x89} << 40 | (base >> 24 & 0xff) << 56;
    gdt[7] = base >> 32;
    const TablePointer pointer{sizeof gdt - 1, reinterpret_cast<std::uint64_t>(gdt)};
    asm volatile("lgdt %0; ltr %1" : : "m"(pointer), "r"(kTask));
    for (const std::uint8_t vector : {kInvalidOpcode, kGeneralProtection, kPageFault})
        set_handler(vector, on_user_exception);
    pointers[0] = reinterpret_cast<std::uint64_t>(directory) | kPresent | kWritable | kUser;
    directory[0] = reinterpret_cast<std::uint64_t>(table) | kPresent | kWritable | kUser;
    page_map_level4[kWindow >> 39] = reinterpret_cast<std::uint64_t>(pointers) | kPresent | kWritable | kUser;
    map(kCode, kCode, kUser);
    map(kStack, kStack, kUser | kWritable);
    write_cr3(reinterpret_cast<std::uint64_t>(page_map_level4));
}

/// Runs with CPL 3 until an exception, whose vector it returns.
[[gnu::noinline]] std::uint64_t run_user(std::uint64_t rip, std::uint64_t rsp) {
    std::uint64_t vector = 0;
    asm volatile("pushq %%rbp; movq %%rsp, user_kernel_rsp\n"
                 "pushq $0x23; pushq %%rsi; pushq $2; pushq $0x2b; pushq %%rdi; iretq\n"
                 ".globl user_return\nuser_return: popq %%rbp"
                 : "=a"(vector), "+D"(rip), "+S"(rsp)
                 :
                 : "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
    return vector;
}

/// What these bytes raise in user mode.
int user(std::initializer_list<std::uint8_t> code) {
    std::memcpy(frames[kCode], code.begin(), code.size());
    frames[kCode][code.size()] = 0x0f;  // UD2
    frames[kCode][code.size() + 1] = 0x0b;
    const std::uint64_t vector = run_user(window(kCode), window(kStack) + kPage);
    if (vector == kInvalidOpcode && user_rip == window(kCode) + code.size())
        return kNoFault;
    return vector == kPageFault ? page_fault(user_error_code) : static_cast<int>(vector);
}

// --- checks ----------------------------------------------------------------------------------------------

constexpr unsigned kProbe = 2;
constexpr std::uint64_t kAt = window(kProbe);

/// A reserved bit is one of an entry that is present [sdm3 4.7 Page-Fault Exceptions]; QEMU's TCG leaves P
/// out of the error code.
void expect_reserved(int raised, const char* what) {
    expect(raised == page_fault(0x9) || (is_amd() && raised == page_fault(0x8)), "%s (0x%x)", what,
           static_cast<unsigned>(raised));
}

void check_pages() {
    const std::uint64_t efer = rdmsr(kEfer), cr0 = read_cr0();
    frames[kProbe][0] = 0xff;  // JMP RCX
    frames[kProbe][1] = 0xe1;
    wrmsr(kEfer, efer & ~kNxe);
    map_now(kProbe, kProbe, kNoExecute);
    expect_reserved(try_read(kAt), "XD is reserved without EFER.NXE");
    wrmsr(kEfer, efer | kNxe);
    expect(try_read(kAt) == kNoFault && try_execute(kAt) == page_fault(0x11), "XD keeps from executing");
    map_now(kProbe, kProbe, 0);
    expect(try_execute(kAt) == kNoFault, "without XD it executes");
    write_cr0(cr0 | kWriteProtect);
    expect(try_write(kAt) == page_fault(0x3), "CR0.WP keeps the supervisor from writing");
    write_cr0(cr0 & ~kWriteProtect);
    expect(try_write(kAt) == kNoFault, "without CR0.WP it writes");
    write_cr0(cr0);
    table[kProbe] = 0;
    invlpg(kAt);
    expect(try_read(kAt) == page_fault(0) && try_write(kAt) == page_fault(2), "a page that is not present");
    const unsigned bits = cpuid(0x8000'0008).eax & 0xff;
    if (bits < 52) {
        map_now(kProbe, kProbe, std::uint64_t{1} << 51);
        expect_reserved(try_read(kAt), "address bits beyond MAXPHYADDR are reserved");
    } else {
        skip("reserved address bits", "MAXPHYADDR is 52");
    }
}

void check_smep_smap() {
    const std::uint64_t cr4 = read_cr4();
    const std::uint32_t features = cpuid(7).ebx;
    frames[kProbe][0] = 0xff;
    frames[kProbe][1] = 0xe1;
    map_now(kProbe, kProbe, kUser | kWritable);
    expect(try_execute(kAt) == kNoFault && try_read(kAt) == kNoFault, "the supervisor uses user pages");
    if ((features >> 7 & 1) != 0) {
        write_cr4(cr4 | kSmep);
        expect(try_execute(kAt) == page_fault(0x11), "SMEP keeps the supervisor from executing user pages");
        expect(try_read(kAt) == kNoFault, "SMEP lets it read them");
        write_cr4(cr4);
        expect(try_execute(kAt) == kNoFault, "without SMEP it executes them");
    } else {
        skip("SMEP", "not offered");
    }
    if ((features >> 20 & 1) != 0) {
        write_cr4(cr4 | kSmap);
        asm volatile("clac");
        expect(try_read(kAt) == page_fault(0x1) && try_write(kAt) == page_fault(0x3),
               "SMAP keeps the supervisor from user data");
        asm volatile("stac");
        const int read = try_read(kAt), written = try_write(kAt);
        asm volatile("clac");
        expect(read == kNoFault && written == kNoFault, "SMAP lets it with EFLAGS.AC");
        write_cr4(cr4);
    } else {
        TRY_INSTRUCTION("stac", EMPTY, );
        expect(fault() == kInvalidOpcode, "SMAP is hidden, STAC is #UD");
    }
}

void check_user_mode() {
    expect(user({0x90}) == kNoFault && user({0x0f, 0xa2}) == kNoFault, "user mode runs, CPUID too");
    // MOV to and from what RAX points to: MOVABS RAX, kAt first.
    const auto at = [](unsigned byte) { return static_cast<std::uint8_t>(kAt >> (8 * byte)); };
    const auto access = [&](std::uint8_t opcode) {
        return user({0x48, 0xb8, at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7), opcode, 0x08});
    };
    map_now(kProbe, kProbe, kWritable);
    expect(access(0x8b) == page_fault(0x5) && access(0x89) == page_fault(0x7),
           "supervisor pages are not the user's");
    map_now(kProbe, kProbe, kUser);
    expect(access(0x8b) == kNoFault && access(0x89) == page_fault(0x7), "read-only pages are read");
    struct Privileged {
        const char* name;
        std::initializer_list<std::uint8_t> code;
    };
    const Privileged privileged[] = {{"HLT", {0xf4}},
                                     {"CLI", {0xfa}},
                                     {"RDMSR", {0x0f, 0x32}},
                                     {"WRMSR", {0x0f, 0x30}},
                                     {"MOV from CR0", {0x0f, 0x20, 0xc0}},
                                     {"MOV to CR4", {0x0f, 0x22, 0xe0}},
                                     {"MOV from DR7", {0x0f, 0x21, 0xf8}},
                                     {"CLTS", {0x0f, 0x06}},
                                     {"INVD", {0x0f, 0x08}},
                                     {"WBINVD", {0x0f, 0x09}},
                                     {"INVLPG", {0x0f, 0x01, 0x38}},
                                     {"RDPMC", {0x0f, 0x33}},
                                     {"IN", {0xe4, 0x80}},
                                     {"OUT", {0xe6, 0x80}}};
    for (const Privileged& instruction : privileged)
        expect(user(instruction.code) == kGeneralProtection, "%s is privileged", instruction.name);
    // Either vendor's instruction; EAX is -1 (not permitted), or HLT comes.
    for (const std::uint8_t call : {std::uint8_t{0xc1}, std::uint8_t{0xd9}})
        expect(user({0x0f, 0x01, call, 0x83, 0xf8, 0xff, 0x74, 0x01, 0xf4}) == kNoFault,
               "a hypercall (%x) is not the user's", unsigned{call});
    const std::uint64_t cr4 = read_cr4();
    write_cr4(cr4 | kTsd);
    expect(user({0x0f, 0x31}) == kGeneralProtection, "CR4.TSD makes RDTSC privileged");
    write_cr4(cr4 & ~kTsd);
    expect(user({0x0f, 0x31}) == kNoFault, "without it RDTSC is the user's");
    if ((cpuid(7).ecx >> 2 & 1) != 0) {
        write_cr4(cr4 | kUmip);
        expect(user({0x0f, 0x01, 0xe0}) == kGeneralProtection, "UMIP makes SMSW privileged");
    } else {
        skip("UMIP", "not offered");
    }
    write_cr4(cr4);
    expect(user({0x0f, 0x01, 0xe0}) == kNoFault, "without it SMSW is the user's");
}

void check_syscall() {
    constexpr std::uint32_t kStar = 0xc000'0081, kLstar = 0xc000'0082, kFmask = 0xc000'0084;
    const std::uint64_t efer = rdmsr(kEfer);
    wrmsr(kStar, std::uint64_t{kKernelData} << 48 | std::uint64_t{kKernelCode} << 32);
    wrmsr(kLstar, reinterpret_cast<std::uint64_t>(syscall_entry));
    wrmsr(kFmask, 0x700);
    wrmsr(kEfer, efer & ~kSce);
    expect(user({0x0f, 0x05}) == kInvalidOpcode && syscall_count == 0, "SYSCALL is #UD without EFER.SCE");
    wrmsr(kEfer, efer | kSce);
    expect(user({0x0f, 0x05}) == kNoFault && syscall_count == 1, "SYSCALL and SYSRET");
    wrmsr(kEfer, efer);
}

void check_translations() {
    const std::uint64_t cr4 = read_cr4();
    const auto cr3 = reinterpret_cast<std::uint64_t>(page_map_level4);
    const auto seen = [] { return read<std::uint8_t>(kAt); };
    frames[3][0] = 3;
    frames[4][0] = 4;
    map_now(kProbe, 3, kWritable);
    bool right = seen() == 3;
    map(kProbe, 4, kWritable);
    write_cr3(cr3);
    expect(right && seen() == 4, "MOV to CR3 drops translations");
    write_cr4(cr4 | kPge);
    map_now(kProbe, 3, kWritable | kGlobal);
    right = seen() == 3;
    map(kProbe, 4, kWritable | kGlobal);
    invlpg(kAt);
    expect(right && seen() == 4, "INVLPG drops a global one");
    map(kProbe, 3, kWritable | kGlobal);
    write_cr4(cr4 & ~kPge);
    expect(seen() == 3, "a change of CR4.PGE drops global ones");
    write_cr4(cr4);
}

}  // namespace

int payload_main() {
    prepare_user_mode();
    check_pages();
    check_smep_smap();
    check_user_mode();
    check_syscall();
    check_translations();
    return verdict("protection");
}
