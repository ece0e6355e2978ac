// SPDX-License-Identifier: MIT
#include "vmm/storage/disk_directory.hpp"

#include "vmm/base/log.hpp"
#include "vmm/storage/partition.hpp"

#include <algorithm>
#include <array>
#include <new>

namespace hv {
namespace {

using log::Topic;

/// Whatever size a disk may come to have.
constexpr std::uint64_t kWholeDisk = ~std::uint64_t{0};

/// What a user may have meant, as far as a line of the log has room beside who he is and what he said; the
/// others are counted.
class Names {
public:
    Names(std::string_view user, std::string_view said)
        : room_{kRoom - std::min(kRoom, user.size() + said.size())} {}

    void add(std::string_view name) {
        constexpr std::string_view kComma = ", ";
        if (more_ != 0 || text_.view().size() + kComma.size() + name.size() > room_)
            ++more_;
        else
            text_.append("%s%.*s", text_.view().empty() ? "" : kComma.data(), width(name), name.data());
    }
    /// What there is. After the last name.
    std::string_view text() {
        if (more_ != 0)
            text_.append(text_.view().empty() ? "%zu others" : ", and %zu more", more_);
        else if (text_.view().empty())
            text_.append("none");
        return text_.view();
    }

private:
    static constexpr std::size_t kRoom = 160;
    const std::size_t room_;
    TextBuffer<kRoom + 32> text_;
    std::size_t more_{0};
};

Unexpected not_found(std::string_view user, const char* what, std::string_view name, Names& known) {
    const std::string_view text = known.text();
    log::error(Topic::block, "%.*s: there is no %s \"%.*s\"; there is %.*s", width(user), user.data(), what,
               width(name), name.data(), width(text), text.data());
    return Unexpected{Error::not_found};
}

}  // namespace

/// A range of a disk for as long as somebody holds it.
class DiskDirectory::ClaimedDisk final : public BlockDevice {
public:
    ClaimedDisk(Claims& claims, Disk& disk, std::unique_ptr<BlockDevice> part, const Claim& claim)
        : claims_{claims},
          disk_{disk},
          part_{std::move(part)},
          range_{part_ != nullptr ? *part_ : *disk.device},
          claim_{claim.disk, claim.first, claim.sectors, claim.writes, claim.user, claim.number} {
        claims_.push_back(claim_);
    }
    ~ClaimedDisk() override {
        claims_.remove(claim_);
        // Partitions lie beside the table, so who writes one leaves it alone.
        if (claim_.writes && part_ == nullptr)
            disk_.table = Disk::Table::outdated;
    }

    [[nodiscard]] BlockGeometry geometry() const override {
        BlockGeometry geometry = range_.geometry();
        geometry.read_only = geometry.read_only || !claim_.writes;
        return geometry;
    }
    void submit(BlockRequest& request) override {
        using Operation = BlockRequest::Operation;
        // Who writes nothing has nothing to flush, and a flush would hold up those beside him.
        if (!claim_.writes && request.operation != Operation::read)
            return request.complete(request, request.operation == Operation::flush ? BlockStatus::ok
                                                                                   : BlockStatus::io_error);
        request.user = claim_.number;
        range_.submit(request);
    }

private:
    Claims& claims_;
    Disk& disk_;
    std::unique_ptr<BlockDevice> part_;  ///< nullptr: it is the whole disk
    BlockDevice& range_;
    Claim claim_;
};

Expected<void> DiskDirectory::add(Disk disk) {
    for (const Disk& other : disks_) {
        if (!disk.identifier.is_same(other.identifier))
            continue;
        log::warning(Topic::block,
                     "%.*s is left out: it is %.*s, reached another way, for both have the same identifier "
                     "(NGUID or EUI64)",
                     width(disk.name.view()), disk.name.view().data(), width(other.name.view()),
                     other.name.view().data());
        return Unexpected{Error::already_exists};
    }
    return disks_.push(std::move(disk));
}

Expected<std::unique_ptr<BlockDevice>> DiskDirectory::open(const config::DiskConfig& config,
                                                           std::string_view user) {
    const bool writes = config.mode == config::DiskMode::read_write;
    const Range range = HV_TRY(find(config, user));
    const std::string_view name = config.name;
    if (writes && range.disk->device->geometry().read_only) {
        log::error(Topic::block, "%.*s: \"%.*s\" is read-only; allowed: mode \"ro\" or \"cow\"", width(user),
                   user.data(), width(name), name.data());
        return Unexpected{Error::unsupported};
    }
    if (const Claim* other = rival(range, writes)) {
        log::error(Topic::block, "%.*s: \"%.*s\" is %s by VM %.*s; one that writes must be alone",
                   width(user), user.data(), width(name), name.data(), other->writes ? "written" : "used",
                   width(other->user), other->user.data());
        return Unexpected{Error::busy};
    }
    std::unique_ptr<BlockDevice> part;
    if (!range.whole)
        part = HV_TRY(hv::Partition::create(*range.disk->device, range.first, range.sectors));
    std::unique_ptr<BlockDevice> disk{new (std::nothrow) ClaimedDisk{
        claims_,
        *range.disk,
        std::move(part),
        {range.disk, range.first, range.sectors, writes, user, number_of(user)}}};
    if (disk == nullptr)
        return Unexpected{Error::no_memory};
    return disk;
}

void DiskDirectory::refresh() {
    for (Disk& disk : disks_)
        refresh(disk);
}

void DiskDirectory::refresh(Disk& disk) {
    if (disk.table == Disk::Table::known || rival({&disk, 0, kWholeDisk, true}, false) != nullptr)
        return;
    disk.partitions.clear();
    disk.table = Disk::Table::unreadable;
    if (source_ == nullptr || disk.device->gone())
        return;
    if (auto partitions = source_->read(disk)) {
        disk.partitions = std::move(*partitions);
        disk.table = Disk::Table::known;
    }
}

Expected<DiskDirectory::Range> DiskDirectory::find(const config::DiskConfig& config, std::string_view user) {
    return config.source == config::DiskSource::partition ? find_label(config.name, user)
                                                          : find_disk(config.name, user);
}

Expected<DiskDirectory::Range> DiskDirectory::find_label(std::string_view label, std::string_view user) {
    for (Disk& disk : disks_) {
        if (disk.table == Disk::Table::outdated)
            refresh(disk);
    }
    Range found{};
    Names known{user, label};
    Names same{user, label};
    unsigned matches = 0;
    for (Disk& disk : disks_) {
        for (const Partition& partition : disk.partitions) {
            if (partition.label.view().empty())
                continue;
            known.add(partition.label.view());
            if (partition.label.view() != label)
                continue;
            ++matches;
            found = {&disk, partition.first, partition.sectors, false};
            TextBuffer<40> place;
            place.append("%.*sp%u", width(disk.name.view()), disk.name.view().data(), partition.number);
            same.add(place.view());
        }
    }
    if (matches == 0)
        return not_found(user, "partition labelled", label, known);
    if (matches > 1) {
        const std::string_view places = same.text();
        log::error(Topic::block, "%.*s: the label \"%.*s\" is on %.*s; allowed: disk: and one of these",
                   width(user), user.data(), width(label), label.data(), width(places), places.data());
        return Unexpected{Error::already_exists};
    }
    return found;
}

Expected<DiskDirectory::Range> DiskDirectory::find_disk(std::string_view name, std::string_view user) {
    Names known{user, name};
    for (Disk& disk : disks_) {
        known.add(disk.name.view());
        if (name == disk.name.view())
            return Range{&disk, 0, kWholeDisk, true};
        if (!name.starts_with(disk.name.view()) || name[disk.name.view().size()] != 'p')
            continue;
        refresh(disk);
        for (const Partition& partition : disk.partitions) {
            TextBuffer<40> place;
            place.append("%.*sp%u", width(disk.name.view()), disk.name.view().data(), partition.number);
            if (name == place.view())
                return Range{&disk, partition.first, partition.sectors, false};
        }
    }
    Disk* found = nullptr;
    for (Disk& disk : disks_) {
        if (name.empty() || name != disk.serial.view())
            continue;
        if (found != nullptr) {
            log::error(Topic::block,
                       "%.*s: the serial number \"%.*s\" is that of %.*s and %.*s; allowed: a name",
                       width(user), user.data(), width(name), name.data(), width(found->name.view()),
                       found->name.view().data(), width(disk.name.view()), disk.name.view().data());
            return Unexpected{Error::already_exists};
        }
        found = &disk;
    }
    if (found == nullptr)
        return not_found(user, "disk", name, known);
    return Range{found, 0, kWholeDisk, true};
}

const DiskDirectory::Claim* DiskDirectory::rival(const Range& range, bool writes) {
    for (const Claim& claim : claims_) {
        const bool overlaps = claim.disk == range.disk && claim.first < range.first + range.sectors &&
                              range.first < claim.first + claim.sectors;
        if (overlaps && (writes || claim.writes))
            return &claim;
    }
    return nullptr;
}

std::uint8_t DiskDirectory::number_of(std::string_view user) {
    std::array<unsigned, kBlockUsers> claims{};
    for (const Claim& claim : claims_) {
        if (claim.user == user)
            return claim.number;
        ++claims[claim.number];
    }
    return static_cast<std::uint8_t>(std::min_element(claims.begin(), claims.end()) - claims.begin());
}

}  // namespace hv
