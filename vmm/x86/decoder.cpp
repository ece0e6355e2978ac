// SPDX-License-Identifier: MIT
#include "vmm/x86/decoder.hpp"

#include "vmm/x86/opcode_table.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>

namespace hv::x86 {
namespace {

using opcode_table::operator+;

// The last byte of a VEX prefix, with a bit that is not in it so that it is never 0.
constexpr unsigned kVexW = 0x80, kVexL = 4, kVex = 0x100;
constexpr unsigned kRexW = 8, kRexR = 4, kRexX = 2, kRexB = 1;

/// 16-bit addressing by ModRM.rm: base, index [sdm2 2.1.5 Addressing-Mode Encoding of ModR/M and SIB Bytes].
constexpr std::uint8_t kBase16[8] = {RBX, RBX, RBP, RBP, RSI, RDI, RBP, RBX};
constexpr std::uint8_t kIndex16[8] = {
    RSI, RDI, RSI, RDI, Instruction::kNone, Instruction::kNone, Instruction::kNone, Instruction::kNone};

class Decoder {
public:
    Decoder(std::span<const std::uint8_t> bytes, CodeMode mode, Instruction& out)
        : at_{bytes.data()},
          end_{bytes.data() + std::min<std::size_t>(bytes.size(), kMaxInstructionLength)},
          start_{bytes.data()},
          full_{bytes.size() >= kMaxInstructionLength},
          mode_{mode},
          out_{out} {}

    DecodeStatus run() {
        out_ = {};
        out_.segment = SegmentName::ds;
        out_.base = out_.index = Instruction::kNone;
        out_.mode = mode_;
        const Opcode* opcode = prefixes_and_opcode();
        if (opcode == nullptr)
            return failure();
        const std::uint8_t flags = opcode->flags;
        if ((flags & Opcode::kInvalid) != 0 || (mode_ == CodeMode::bits64 && (flags & Opcode::kNot64) != 0))
            return DecodeStatus::invalid;
        out_.operation = opcode->operation;
        out_.form = opcode->form;
        set_sizes(flags);
        if ((flags & Opcode::kModrm) != 0) {
            if (!modrm((flags & Opcode::kRegisters) != 0))
                return failure();
        } else {
            out_.reg = static_cast<std::uint8_t>((out_.opcode & 7) | ((rex_ & kRexB) << 3));
        }
        Immediate kind = opcode->immediate;
        if (opcode->group != Group::none)
            kind = resolve_group(opcode->group, kind);
        if (map_ == 1)
            kind = adjust_two_byte(kind);
        if (out_.operation == Operation::other && out_.memory)
            resolve_vector_move();
        if (kind != Immediate::none && !immediate(kind))
            return failure();
        out_.length = static_cast<std::uint8_t>(at_ - start_);
        return DecodeStatus::ok;
    }

private:
    [[nodiscard]] DecodeStatus failure() const {
        return invalid_ || full_ ? DecodeStatus::invalid : DecodeStatus::need_more;
    }
    [[nodiscard]] bool left(unsigned bytes) const { return static_cast<std::size_t>(end_ - at_) >= bytes; }

    /// Reads a little-endian value, sign-extended.
    template <class T>
    bool take(std::int64_t& value) {
        if (!left(sizeof(T)))
            return false;
        T raw;
        std::memcpy(&raw, at_, sizeof raw);
        at_ += sizeof raw;
        value = raw;
        return true;
    }

    /// Consumes all up to the opcode; nullptr: out of bytes, or invalid_.
    const Opcode* prefixes_and_opcode() {
        for (;;) {
            if (!left(1))
                return nullptr;
            const std::uint8_t byte = *at_++;
            if (mode_ == CodeMode::bits64 && (byte & 0xf0) == 0x40) {
                rex_ = byte;
                out_.rex = true;
                continue;
            }
            const Opcode& opcode = opcode_table::kOneByte[byte];
            if ((opcode.flags & Opcode::kPrefix) == 0) {
                out_.opcode = byte;
                return refine_one_byte(opcode);
            }
            switch (byte) {
            case 0x0f: return two_byte();
            case 0x62:
            case 0xc4:
            case 0xc5: return vector_prefix(byte);
            case 0x66: operand_override_ = true; break;
            case 0x67: address_override_ = true; break;
            case 0xf0: out_.lock = true; break;
            case 0xf2: out_.repeat = Repeat::repne; break;
            case 0xf3: out_.repeat = Repeat::rep; break;
            case 0x64: override_segment(SegmentName::fs); break;
            case 0x65: override_segment(SegmentName::gs); break;
            default:  // ES, CS, SS, DS: without effect in 64-bit mode
                if (mode_ != CodeMode::bits64)
                    override_segment(static_cast<SegmentName>((byte >> 3) & 3));
                break;
            }
            rex_ = 0;  // REX counts only right before the opcode
            out_.rex = false;
        }
    }

    void override_segment(SegmentName name) {
        out_.segment = name;
        segment_override_ = true;
    }

    const Opcode* refine_one_byte(const Opcode& opcode) {
        static constexpr Opcode kPause{.operation = Operation::pause};
        static constexpr Opcode kArpl{.form = Form::rm_reg, .flags = Opcode::kModrm};
        if (out_.opcode == 0x90 && out_.repeat == Repeat::rep && (rex_ & kRexB) == 0)
            return &kPause;
        if (out_.opcode == 0x63 && mode_ != CodeMode::bits64)
            return &kArpl;
        return &opcode;
    }

    const Opcode* two_byte() {
        static constexpr Opcode k0f38{.form = Form::reg_rm, .flags = Opcode::kModrm};
        static constexpr Opcode k0f3a{
            .form = Form::reg_rm, .immediate = Immediate::byte, .flags = Opcode::kModrm};
        static constexpr Opcode kMovbe[2] = {
            {.operation = Operation::movbe, .form = Form::reg_rm, .flags = Opcode::kModrm},
            {.operation = Operation::movbe, .form = Form::rm_reg, .flags = Opcode::kModrm}};
        if (!left(1))
            return nullptr;
        out_.opcode = *at_++;
        map_ = 1;
        if (out_.opcode != 0x38 && out_.opcode != 0x3a)
            return &opcode_table::kTwoByte[out_.opcode];
        map_ = out_.opcode == 0x38 ? 2 : 3;
        if (!left(1))
            return nullptr;
        out_.opcode = *at_++;
        if (map_ == 3)
            return &k0f3a;
        if ((out_.opcode & 0xfe) == 0xf0 && out_.repeat != Repeat::repne)  // with F2: CRC32
            return &kMovbe[out_.opcode & 1];
        return &k0f38;
    }

    /// VEX and EVEX [sdm2 2.3 Intel Advanced Vector Extensions (Intel AVX)], [sdm2 2.7 Intel AVX-512
    /// Encoding]; outside 64-bit mode their first byte is LDS, LES or BOUND unless what follows would name a
    /// register.
    const Opcode* vector_prefix(std::uint8_t first) {
        static constexpr Opcode kBare{.operation = Operation::other};
        static constexpr Opcode kPlain{.form = Form::reg_rm, .flags = Opcode::kModrm};
        static constexpr Opcode kWithByte{
            .form = Form::reg_rm, .immediate = Immediate::byte, .flags = Opcode::kModrm};
        if (!left(1))
            return nullptr;
        if (mode_ != CodeMode::bits64 && (*at_ & 0xc0) != 0xc0) {
            out_.opcode = first;
            return &kPlain;
        }
        const unsigned payload = first == 0xc5 ? 1 : first == 0xc4 ? 2 : 3;
        if (!left(payload + 1))
            return nullptr;
        const std::uint8_t p0 = at_[0];
        const unsigned map = first == 0xc5 ? 1 : first == 0xc4 ? p0 & 0x1fU : p0 & 0x07U;
        at_ += payload;
        out_.opcode = *at_++;
        const std::uint8_t last = at_[-2];  // VEX: W, vvvv, L, pp
        vex_ = first == 0x62 ? 0 : last | kVex;
        vex_map_ = static_cast<std::uint8_t>(map);
        if (first == 0xc5)
            vex_ &= ~kVexW;  // it is R in this one
        // The inverted R, X and B, so that RIP-relative and SIB forms are told apart alike.
        rex_ = ((p0 ^ 0xffU) >> 5) & (first == 0xc5 ? kRexR : kRexR | kRexX | kRexB);
        if (mode_ != CodeMode::bits64)
            rex_ = 0;
        const bool evex = first == 0x62;
        map_ = 4;  // none that adjust_two_byte() knows
        switch (map) {
        case 1:
            if (out_.opcode == 0x77 && !evex)
                return &kBare;  // VZEROUPPER, VZEROALL
            return opcode_table::kTwoByte[out_.opcode].immediate == Immediate::byte && out_.opcode >= 0x70 &&
                           out_.opcode != 0xa4 && out_.opcode != 0xac && out_.opcode != 0xba
                       ? &kWithByte
                       : &kPlain;
        case 3: return &kWithByte;
        case 2: return &kPlain;
        case 5:
        case 6:
            if (evex)
                return &kPlain;
            [[fallthrough]];
        default: invalid_ = true; return nullptr;
        }
    }

    void set_sizes(std::uint8_t flags) {
        const bool w = (rex_ & kRexW) != 0;
        if (mode_ == CodeMode::bits64) {
            out_.address_size = address_override_ ? 4 : 8;
            out_.operand_size = w ? 8 : operand_override_ ? 2 : (flags & Opcode::kStack) != 0 ? 8 : 4;
            if ((flags & Opcode::kRegisters) != 0)
                out_.operand_size = 8;
        } else {
            out_.address_size = (mode_ == CodeMode::bits32) != address_override_ ? 4 : 2;
            out_.operand_size = (mode_ == CodeMode::bits32) != operand_override_ ? 4 : 2;
            if ((flags & Opcode::kRegisters) != 0)
                out_.operand_size = 4;
        }
        immediate_size_ = out_.operand_size;
        if ((flags & Opcode::kByte) != 0)
            out_.operand_size = 1;
        out_.memory_size = out_.operand_size;
        if (map_ == 0 && out_.opcode == 0x63)
            out_.memory_size = out_.operand_size == 2 ? 2 : 4;  // MOVSXD
        if (map_ == 0 && (out_.opcode == 0x8c || out_.opcode == 0x8e))
            out_.memory_size = 2;  // MOV of a segment register
    }

    bool modrm(bool registers) {
        if (!left(1))
            return false;
        const std::uint8_t byte = *at_++;
        out_.modrm = byte;
        out_.has_modrm = true;
        out_.reg = static_cast<std::uint8_t>(((byte >> 3) & 7) | ((rex_ & kRexR) << 1));
        const unsigned mod = byte >> 6;
        const unsigned rm = byte & 7;
        if (mod == 3 || registers) {
            out_.rm = static_cast<std::uint8_t>(rm | ((rex_ & kRexB) << 3U));
            return true;
        }
        out_.memory = true;
        return out_.address_size == 2 ? address16(mod, rm) : address32(mod, rm);
    }

    bool address16(unsigned mod, unsigned rm) {
        if (mod == 0 && rm == 6)
            return take<std::int16_t>(out_.displacement);
        out_.base = kBase16[rm];
        out_.index = kIndex16[rm];
        if (out_.base == RBP && !segment_override_)
            out_.segment = SegmentName::ss;
        return displacement(mod, 2);
    }

    bool address32(unsigned mod, unsigned rm) {
        unsigned base = rm;
        if (rm == 4) {
            if (!left(1))
                return false;
            const std::uint8_t sib = *at_++;
            const unsigned index = ((sib >> 3) & 7U) | ((rex_ & kRexX) << 2U);
            if (index != RSP) {
                out_.index = static_cast<std::uint8_t>(index);
                out_.scale = sib >> 6;
            }
            base = sib & 7;
        }
        if (mod == 0 && base == 5) {
            if (rm == 5 && mode_ == CodeMode::bits64)
                out_.base = Instruction::kRip;
            return take<std::int32_t>(out_.displacement);
        }
        if ((base == RSP || base == RBP) && (rex_ & kRexB) == 0 && !segment_override_)
            out_.segment = SegmentName::ss;
        out_.base = static_cast<std::uint8_t>(base | ((rex_ & kRexB) << 3U));
        return displacement(mod, 4);
    }

    bool displacement(unsigned mod, unsigned wide) {
        if (mod == 0)
            return true;
        if (mod == 1)
            return take<std::int8_t>(out_.displacement);
        return wide == 2 ? take<std::int16_t>(out_.displacement) : take<std::int32_t>(out_.displacement);
    }

    /// What ModRM.reg says; returns the immediate that follows.
    Immediate resolve_group(Group group, Immediate kind) {
        const unsigned reg = (out_.modrm >> 3) & 7;
        switch (group) {
        case Group::none: break;
        case Group::group1: out_.operation = Operation::add + reg; break;
        case Group::group2: out_.operation = Operation::rol + reg; break;
        case Group::group3:
            out_.operation = reg == 1 ? Operation::test : Operation::test + reg;
            if (reg > 1)
                return Immediate::none;
            out_.form = Form::rm_imm;
            return kind == Immediate::test_byte ? Immediate::byte : Immediate::size_z;
        case Group::group4:
        case Group::group5: resolve_group5(reg); break;
        case Group::group7: resolve_group7(reg); break;
        case Group::group8: out_.operation = reg < 4 ? Operation::other : Operation::bt + (reg - 4); break;
        case Group::group9:
            if (reg == 1 && out_.memory) {
                out_.operation = Operation::cmpxchg8b;
                out_.memory_size = out_.operand_size == 8 ? 16 : 8;
            }
            break;
        case Group::mov_imm: out_.operation = reg == 0 ? Operation::mov : Operation::other; break;
        case Group::pop:
            if (reg != 0)
                out_.operation = Operation::other;  // AMD's XOP
            break;
        }
        return kind;
    }

    void resolve_group5(unsigned reg) {
        if (reg < 2) {
            out_.operation = reg == 0 ? Operation::inc : Operation::dec;
        } else if (out_.opcode == 0xff && out_.memory && (reg == 3 || reg == 5)) {
            out_.operation = reg == 3 ? Operation::call_far : Operation::jmp_far;
            out_.memory_size = static_cast<std::uint8_t>(out_.operand_size + 2);
        } else if (out_.opcode == 0xff && (reg == 2 || reg == 4 || reg == 6)) {
            out_.operation = reg == 2 ? Operation::call : reg == 4 ? Operation::jmp : Operation::push;
            // 64-bit mode has no 32-bit form of these, and of near branches, as Intel has it, no 16-bit form.
            if (mode_ == CodeMode::bits64 && (out_.operand_size == 4 || reg != 6))
                out_.operand_size = out_.memory_size = 8;
        }
    }

    /// After ModRM: what kVectorMoves says about an instruction with a memory operand.
    void resolve_vector_move() {
        using Move = opcode_table::VectorMove;
        static constexpr std::uint8_t kByVex[4] = {Move::kBare, Move::k66, Move::kF3, Move::kF2};
        const bool vex = vex_ != 0;
        const std::uint8_t prefix = vex                            ? kByVex[vex_ & 3]
                                    : out_.repeat == Repeat::rep   ? Move::kF3
                                    : out_.repeat == Repeat::repne ? Move::kF2
                                    : operand_override_            ? Move::k66
                                                                   : Move::kBare;
        const std::uint8_t map = vex ? vex_map_ : map_;
        const Move* const row = std::find_if(
            std::begin(opcode_table::kVectorMoves), std::end(opcode_table::kVectorMoves), [&](const Move& m) {
                return m.map == map && m.opcode == out_.opcode && (m.prefixes & prefix) != 0;
            });
        if (row == std::end(opcode_table::kVectorMoves))
            return;
        const bool mmx = prefix == Move::kBare && (row->flags & Move::kMmx) != 0;
        const bool load_half = (row->flags & Move::kHalf) != 0;
        if (vex && (mmx || load_half))
            return;  // undefined; and loads of a half that merge with a third register
        const bool wide = mode_ == CodeMode::bits64 && (vex ? (vex_ & kVexW) != 0 : (rex_ & kRexW) != 0);
        const unsigned full = vex && (vex_ & kVexL) != 0 ? 32 : 16;
        out_.operation = Operation::vector_move;
        out_.form = (row->flags & Move::kStore) != 0 ? Form::rm_reg : Form::reg_rm;
        out_.vector = vex ? VectorFile::ymm : mmx ? VectorFile::mmx : VectorFile::xmm;
        if (mmx)
            out_.reg &= 7;
        out_.memory_size = static_cast<std::uint8_t>(row->size == Move::kFull   ? full
                                                     : row->size == Move::kWord ? (wide ? 8 : 4)
                                                                                : row->size);
        out_.aligned = (row->flags & Move::kAligned) != 0;
        out_.half = load_half;
        out_.high = (row->flags & Move::kHigh) != 0;
    }

    void resolve_group7(unsigned reg) {
        if (!out_.memory && out_.modrm == 0xc1)
            out_.operation = Operation::vmcall;
        else if (!out_.memory && out_.modrm == 0xd1)
            out_.operation = Operation::xsetbv;
        else if (!out_.memory && out_.modrm == 0xd9)
            out_.operation = Operation::vmmcall;
        else if (!out_.memory && out_.modrm == 0xf9)
            out_.operation = Operation::rdtscp;
        else if (reg == 4)
            out_.operation = Operation::smsw;
        else if (reg == 6)
            out_.operation = Operation::lmsw;
        else if (reg == 7 && out_.memory)
            out_.operation = Operation::invlpg;
        else if (reg < 4 && out_.memory)
            out_.operation = Operation::sgdt + reg;
        if (out_.memory)
            out_.memory_size = reg >= 4 ? 2 : mode_ == CodeMode::bits64 ? 10 : 6;
    }

    Immediate adjust_two_byte(Immediate kind) {
        switch (out_.opcode) {
        case 0x78:  // EXTRQ, INSERTQ; else VMREAD
            return operand_override_ || out_.repeat == Repeat::repne ? Immediate::word : kind;
        case 0xb6:
        case 0xbe: out_.memory_size = 1; return kind;
        case 0xb7:
        case 0xbf: out_.memory_size = 2; return kind;
        case 0xb8:
            if (out_.repeat != Repeat::rep)
                out_.operation = Operation::other;  // JMPE
            return kind;
        case 0xbc:
        case 0xbd:
            if (out_.repeat == Repeat::rep)
                out_.operation = out_.opcode == 0xbc ? Operation::tzcnt : Operation::lzcnt;
            return kind;
        default: return kind;
        }
    }

    bool immediate(Immediate kind) {
        std::int64_t value = 0;
        std::int64_t second = 0;
        bool complete = true;
        switch (kind) {
        case Immediate::byte: complete = take<std::int8_t>(value); break;
        case Immediate::word: complete = take<std::int16_t>(value); break;
        case Immediate::branch_z:
            complete = mode_ != CodeMode::bits64 && immediate_size_ == 2 ? take<std::int16_t>(value)
                                                                         : take<std::int32_t>(value);
            break;
        case Immediate::size_v:
            complete = immediate_size_ == 8 ? take<std::int64_t>(value) : size_z(value);
            break;
        case Immediate::address:
            out_.memory = true;
            return out_.address_size == 8   ? take<std::int64_t>(out_.displacement)
                   : out_.address_size == 4 ? take<std::int32_t>(out_.displacement)
                                            : take<std::int16_t>(out_.displacement);
        case Immediate::far_pointer: complete = size_z(value) && take<std::int16_t>(second); break;
        case Immediate::enter:  // the size in bits 15:0, the nesting level above
            complete = take<std::int16_t>(value) && take<std::int8_t>(second);
            value = (value & 0xffff) | (second & 0xff) << 16;
            break;
        default: complete = size_z(value); break;
        }
        out_.immediate = static_cast<std::uint64_t>(value);
        return complete;
    }

    bool size_z(std::int64_t& value) {
        return immediate_size_ == 2 ? take<std::int16_t>(value) : take<std::int32_t>(value);
    }

    const std::uint8_t* at_;
    const std::uint8_t* end_;
    const std::uint8_t* start_;
    bool full_;  ///< `end_` is where no instruction goes beyond
    bool invalid_{false};
    CodeMode mode_;
    unsigned rex_{0};
    unsigned vex_{0};
    std::uint8_t vex_map_{0};
    std::uint8_t map_{0};  ///< 1: 0F, 2: 0F38, 3: 0F3A
    std::uint8_t immediate_size_{0};
    bool operand_override_{false};
    bool address_override_{false};
    bool segment_override_{false};
    Instruction& out_;
};

}  // namespace

DecodeStatus decode(std::span<const std::uint8_t> bytes, CodeMode mode, Instruction& out) {
    return Decoder{bytes, mode, out}.run();
}

}  // namespace hv::x86
