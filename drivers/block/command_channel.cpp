// SPDX-License-Identifier: MIT
#include "drivers/block/command_channel.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace hv::block {

using Operation = BlockRequest::Operation;

void complete_all(RequestList& ended) {
    while (BlockRequest* request = ended.pop_front())
        request->complete(*request, request->worst_status);
}

Expected<void> CommandEngine::Channel::init(DmaPool& pool) {
    HV_TRY(slots_.resize(engine_.options_.slots));
    for (unsigned i = 0; i < slots_.size(); ++i)
        free_[i / 64] |= std::uint64_t{1} << i % 64;
    bounce_ = HV_TRY(pool.allocate(kPageSize));
    zeroes_ = HV_TRY(pool.allocate(kZeroBytes));
    return {};
}

Expected<void> CommandEngine::Channel::make_room(const CommandLimits& limits) {
    return runs_.resize(std::max<std::size_t>(runs_.size(), limits.max_runs));
}

bool CommandEngine::Channel::accept(BlockRequest& request) {
    {
        const LockGuard guard{lock_};
        if (engine_.gone())
            return false;
        waiting_[request.user].push_back(request);
        waiting_users_ |= std::uint32_t{1} << request.user;
        if (engine_.working())
            pump();
    }
    engine_.start_watch();
    return true;
}

void CommandEngine::Channel::pump() {
    bool issued = false;
    std::uint32_t without_page = 0;  // users who have to wait for the bounce page
    while (const std::uint32_t users = waiting_users_ & ~without_page) {
        Slot* slot = free_slot();
        if (slot == nullptr)
            break;
        const unsigned user = next_of(users);
        if (!begin(*slot, *waiting_[user].front())) {
            without_page |= std::uint32_t{1} << user;
            continue;
        }
        served_ = user;
        issue(*slot);
        issued = true;
    }
    if (issued)
        engine_.hardware_.commit(index_);
}

unsigned CommandEngine::Channel::next_of(std::uint32_t users) const {
    static_assert(kBlockUsers == 32);
    const unsigned first = served_ + 1;
    const int ahead = std::countr_zero(std::rotr(users, static_cast<int>(first)));
    return (first + static_cast<unsigned>(ahead)) % kBlockUsers;
}

void CommandEngine::Channel::remove(BlockRequest& request) {
    RequestList& list = waiting_[request.user];
    list.remove(request);
    if (list.empty())
        waiting_users_ &= ~(std::uint32_t{1} << request.user);
}

CommandEngine::Channel::Slot* CommandEngine::Channel::free_slot() {
    for (unsigned word = 0; word < free_.size(); ++word) {
        if (free_[word] != 0)
            return &slots_[word * 64 + static_cast<unsigned>(std::countr_zero(free_[word]))];
    }
    return nullptr;
}

bool CommandEngine::Channel::begin(Slot& slot, BlockRequest& request) {
    const HardwareDisk& disk = *engine_.disks_[request.unit];
    const CommandLimits& limits = disk.description().limits;
    const std::uint32_t block = disk.description().logical_block_size;
    const std::uint64_t left = request.sector_count - request.issued;
    slot.first = request.issued;
    slot.data = {request.segment, request.offset};
    slot.bounced = false;
    switch (request.operation) {
    case Operation::flush: slot.sectors = 0; break;
    case Operation::read:
    case Operation::write: {
        const std::uint64_t most =
            std::min<std::uint64_t>(left * kSectorSize, std::uint64_t{limits.max_blocks} * block);
        const Cut next = cut(request.segments, slot.data, most, limits, block, runs_.span());
        slot.bounced = next.runs == 0;
        if (slot.bounced && bounce_in_use_)
            return false;
        slot.sectors = next.bytes / kSectorSize;
        request.segment = next.end.segment;
        request.offset = next.end.offset;
        break;
    }
    case Operation::write_zeroes:
        if (!limits.can_write_zeroes) {
            const std::uint64_t bytes =
                std::min<std::uint64_t>(std::uint64_t{limits.max_blocks} * block,
                                        std::uint64_t{limits.max_runs} * zero_run_bytes(limits));
            slot.sectors = std::min(left, bytes / kSectorSize);
            break;
        }
        [[fallthrough]];
    case Operation::discard:
        slot.sectors = std::min(left, limits.max_range_blocks * (block / kSectorSize));
        break;
    }
    request.issued += slot.sectors;
    ++request.commands;
    slot.request = &request;
    slot.order = next_order_++;
    slot.attempts = 0;
    const unsigned index = index_of(slot);
    free_[index / 64] &= ~(std::uint64_t{1} << index % 64);
    if (slot.bounced)
        bounce_in_use_ = true;
    if (request.issued == request.sector_count)
        remove(request);
    return true;
}

void CommandEngine::Channel::issue(Slot& slot) {
    BlockRequest& request = *slot.request;
    const HardwareDisk& disk = *engine_.disks_[request.unit];
    const std::uint32_t ratio = disk.description().logical_block_size / kSectorSize;
    ++slot.attempts;
    slot.issued_at = engine_.clock_.now();
    slot.epoch = engine_.epoch();
    slot.put_off = false;
    BlockCommand command{
        request.operation, request.unit, (request.sector + slot.first) / ratio, slot.sectors / ratio, {}};
    if (request.operation == Operation::flush)
        command.block = 0;
    else if (request.operation == Operation::read || request.operation == Operation::write)
        command.runs = runs_of(slot, disk);
    else if (request.operation == Operation::write_zeroes && !disk.description().limits.can_write_zeroes) {
        command.operation = Operation::write;
        command.runs = zero_runs(slot.sectors * kSectorSize, zero_run_bytes(disk.description().limits));
    } else if (request.operation == Operation::write_zeroes) {
        command.may_unmap = request.may_unmap && disk.description().limits.can_unmap_zeroes;
    }
    engine_.hardware_.issue(index_, index_of(slot), command);
}

std::span<const DmaRun> CommandEngine::Channel::runs_of(Slot& slot, const HardwareDisk& disk) {
    const BlockRequest& request = *slot.request;
    const std::uint64_t bytes = slot.sectors * kSectorSize;
    if (!slot.bounced) {
        const DiskDescription& d = disk.description();
        return runs_.span().first(
            cut(request.segments, slot.data, bytes, d.limits, d.logical_block_size, runs_.span()).runs);
    }
    if (request.operation == Operation::write) {
        std::byte* to = bounce_.bytes().data();
        advance(request.segments, slot.data, bytes, [&](const std::byte* from, std::uint32_t size) {
            std::memcpy(to, from, size);
            to += size;
        });
    }
    runs_[0] = {bounce_.address(), static_cast<std::uint32_t>(bytes)};
    return runs_.span().first(1);
}

std::span<const DmaRun> CommandEngine::Channel::zero_runs(std::uint64_t bytes, std::uint32_t run_bytes) {
    std::size_t count = 0;
    for (; bytes > 0; ++count) {
        runs_[count] = {zeroes_.address(),
                        static_cast<std::uint32_t>(std::min<std::uint64_t>(bytes, run_bytes))};
        bytes -= runs_[count].size;
    }
    return runs_.span().first(count);
}

bool CommandEngine::Channel::service() {
    if (!turn_.enter())
        return true;
    bool found = false;
    unsigned budget = kBudget;
    do {
        std::size_t reaped = 0;
        do {
            std::array<CommandHardware::Completion, kBatch> done{};
            RequestList ended;
            {
                const LockGuard guard{lock_};
                if (!engine_.working())
                    break;
                reaped = engine_.hardware_.reap(index_, done);
                found = found || reaped != 0;
                ended_ += reaped;
                for (std::size_t i = 0; i < reaped; ++i) {
                    Slot& slot = slots_[done[i].slot];
                    if (slot.request != nullptr && !(done[i].again && put_off(slot)))
                        finish(slot, done[i].status, ended);
                }
                pump();
            }
            complete_all(ended);
            budget -= kBatch;
        } while (reaped == kBatch && budget > 0);
        if (budget == 0) {
            engine_.clock_.arm(*this, engine_.clock_.now());
            turn_.abandon();
            return true;
        }
    } while (turn_.leave());
    return found;
}

void CommandEngine::Channel::finish(Slot& slot, BlockStatus status, RequestList& ended) {
    BlockRequest& request = *slot.request;
    if (slot.bounced) {
        bounce_in_use_ = false;
        served_ = request.user;  // those who had to do without the page come next
        if (request.operation == Operation::read && status == BlockStatus::ok) {
            const std::byte* from = bounce_.bytes().data();
            advance(request.segments, slot.data, slot.sectors * kSectorSize,
                    [&](std::byte* to, std::uint32_t size) {
                        std::memcpy(to, from, size);
                        from += size;
                    });
        }
    }
    slot.request = nullptr;
    const unsigned index = index_of(slot);
    free_[index / 64] |= std::uint64_t{1} << index % 64;
    if (status != BlockStatus::ok) {
        request.worst_status = status;
        // The rest is of no use to anyone.
        if (request.link.linked())
            remove(request);
        request.issued = request.sector_count;
    }
    if (--request.commands == 0 && request.issued == request.sector_count)
        ended.push_back(request);
}

bool CommandEngine::Channel::put_off(Slot& slot) {
    if (slot.attempts >= kAttempts)
        return false;
    slot.put_off = true;
    slot.issued_at = engine_.clock_.now();
    return true;
}

void CommandEngine::Channel::issue_put_off() {
    const LockGuard guard{lock_};
    if (!engine_.working())
        return;
    const std::uint64_t now = engine_.clock_.now();
    bool issued = false;
    for (Slot& slot : slots_) {
        if (slot.request == nullptr || !slot.put_off || now - slot.issued_at < engine_.again_after_)
            continue;
        issue(slot);
        issued = true;
    }
    if (issued)
        engine_.hardware_.commit(index_);
}

void CommandEngine::Channel::look(Watch& watch) {
    const LockGuard guard{lock_};
    watch.busy = watch.busy || waiting_users_ != 0;
    watch.ended += ended_;
    for (const Slot& slot : slots_) {
        if (slot.request == nullptr)
            continue;
        watch.busy = true;
        // What a reset interrupted is about to be issued anew.
        if (slot.epoch != engine_.epoch())
            continue;
        watch.flushing = watch.flushing || slot.request->operation == Operation::flush;
        watch.oldest = std::min(watch.oldest, slot.issued_at);
    }
}

bool CommandEngine::Channel::look_at_sizes() {
    const LockGuard guard{lock_};
    return engine_.working() && engine_.hardware_.look_at_sizes(engine_.disks_.span());
}

CommandEngine::Channel::Slot* CommandEngine::Channel::interrupted(std::uint64_t epoch, std::uint64_t order) {
    Slot* first = nullptr;
    for (Slot& slot : slots_) {
        if (slot.request != nullptr && slot.epoch != epoch && slot.order >= order &&
            (first == nullptr || slot.order < first->order))
            first = &slot;
    }
    return first;
}

void CommandEngine::Channel::resume() {
    RequestList ended;
    {
        const LockGuard guard{lock_};
        // Another reset may begin while this goes on.
        const std::uint64_t epoch = engine_.epoch();
        if (!works_in(epoch))
            return;
        const auto failed = [&](const Slot& slot) {
            return engine_.hardware_.failed_by_itself(index_, index_of(slot));
        };
        // Requests that came since the reset's end were issued then.
        const bool culprit_known = std::any_of(slots_.begin(), slots_.end(), [&](const Slot& each) {
            return each.request != nullptr && each.epoch != epoch && failed(each);
        });
        bool issued = false;
        // In their order, so that those that have waited longest do not wait for others once more.
        Slot* slot = interrupted(epoch, 0);
        for (; slot != nullptr; slot = interrupted(epoch, slot->order + 1)) {
            const bool hopeless = culprit_known ? failed(*slot) : slot->attempts >= kAttempts;
            if (hopeless) {
                finish(*slot, BlockStatus::io_error, ended);
            } else {
                // A reset for another command's sake is no attempt of this one. There is an end to those.
                slot->attempts -= culprit_known ? 1 : 0;
                issue(*slot);
            }
            issued = issued || !hopeless;
        }
        if (issued)
            engine_.hardware_.commit(index_);
        pump();
    }
    complete_all(ended);
}

void CommandEngine::Channel::give_up() {
    RequestList ended;
    {
        const LockGuard guard{lock_};
        for (Slot& slot : slots_) {
            if (slot.request != nullptr)
                finish(slot, BlockStatus::io_error, ended);
        }
        while (waiting_users_ != 0) {
            BlockRequest& request = *waiting_[next_of(waiting_users_)].front();
            remove(request);
            request.worst_status = BlockStatus::io_error;
            ended.push_back(request);
        }
    }
    complete_all(ended);
}

}  // namespace hv::block
