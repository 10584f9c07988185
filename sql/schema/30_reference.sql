-- Reference data of the calculators: printers, filaments and farm platforms on the market. Rows may be edited; nothing of a farm's own is here.
-- Data from odin-print-farm-mcp 2.1.0 (Apache License 2.0, github.com/HughKantsime/odin-mcp), figures unchanged; see NOTICE.
CREATE TABLE odin.reference_printers (
  position     integer PRIMARY KEY,
  slug         text NOT NULL UNIQUE,
  name         text NOT NULL,
  manufacturer text NOT NULL,
  protocol     text NOT NULL,
  bed_x_mm     numeric NOT NULL,
  bed_y_mm     numeric NOT NULL,
  bed_z_mm     numeric NOT NULL,
  price        numeric NOT NULL,
  speed_mm_s   integer NOT NULL,
  watts        numeric NOT NULL,
  enclosed     boolean NOT NULL,
  auto_level   boolean NOT NULL,
  life_hours   integer NOT NULL,
  farm_score   integer NOT NULL,
  reliability  integer NOT NULL,
  support      text NOT NULL CHECK (support IN ('full','partial','none')),
  best_for     text[] NOT NULL,
  pros         text[] NOT NULL,
  cons         text[] NOT NULL
);
COMMENT ON TABLE odin.reference_printers IS 'Printer models on the market with price (USD), speed, nameplate watts, life and scores. Look-ups take the first match by position.';
CREATE TABLE odin.reference_filaments (
  position     integer PRIMARY KEY,
  slug         text NOT NULL UNIQUE,
  name         text NOT NULL,
  density      numeric NOT NULL,
  price_min    numeric NOT NULL,
  price_max    numeric NOT NULL,
  nozzle_min_c integer NOT NULL,
  nozzle_max_c integer NOT NULL,
  bed_min_c    integer NOT NULL,
  bed_max_c    integer NOT NULL
);
COMMENT ON TABLE odin.reference_filaments IS 'Materials with density (g/cm3), usual price per kg (USD) and temperatures.';
CREATE TABLE odin.reference_platforms (
  position     integer PRIMARY KEY,
  slug         text NOT NULL UNIQUE,
  name         text NOT NULL,
  pricing      text NOT NULL,
  per_printer  numeric NOT NULL,
  base         numeric NOT NULL,
  self_hosted  boolean NOT NULL,
  protocols    text[] NOT NULL,
  ai_detection text NOT NULL CHECK (ai_detection IN ('yes','plugin-only','no')),
  features     text[] NOT NULL,
  plugin_features text[] NOT NULL DEFAULT '{}',
  unlimited    boolean NOT NULL
);
COMMENT ON TABLE odin.reference_platforms IS 'Farm software with its monthly price (USD) and which of 14 features it has.';
INSERT INTO odin.reference_printers(position, slug, name, manufacturer, protocol, bed_x_mm, bed_y_mm, bed_z_mm, price, speed_mm_s, watts, enclosed, auto_level, life_hours, farm_score, reliability, support, best_for, pros, cons) VALUES
  (1, 'bambu-lab-x1c', 'Bambu Lab X1 Carbon', 'Bambu Lab', 'bambu-mqtt', 256, 256, 256, 1199, 500, 350, true, true, 5000, 95, 90, 'full', '{"production","multi-material","business","prototyping"}', '{"Fastest CoreXY in class","Full enclosure","AMS multi-color","Lidar bed leveling"}', '{"Proprietary ecosystem","Cloud-dependent without ODIN","Expensive AMS refills"}'),
  (2, 'bambu-lab-p1s', 'Bambu Lab P1S', 'Bambu Lab', 'bambu-mqtt', 256, 256, 256, 699, 500, 350, true, true, 5000, 92, 88, 'full', '{"production","small-business","multi-material"}', '{"Fast","Enclosed","AMS compatible","Great value"}', '{"Proprietary ecosystem","No lidar","Limited third-party nozzles"}'),
  (3, 'bambu-lab-a1', 'Bambu Lab A1', 'Bambu Lab', 'bambu-mqtt', 256, 256, 256, 399, 500, 150, false, true, 4000, 80, 82, 'full', '{"education","hobbyist-farm","PLA-production"}', '{"Budget-friendly speed","AMS Lite compatible","Easy setup"}', '{"No enclosure","PLA/PETG only recommended","Open frame dust issues"}'),
  (4, 'bambu-lab-a1-mini', 'Bambu Lab A1 Mini', 'Bambu Lab', 'bambu-mqtt', 180, 180, 180, 299, 500, 150, false, true, 4000, 72, 80, 'full', '{"miniatures","education","small-parts"}', '{"Cheapest Bambu","Compact","Fast for size"}', '{"Small build volume","No enclosure","Limited material range"}'),
  (5, 'bambu-lab-x1e', 'Bambu Lab X1E', 'Bambu Lab', 'bambu-mqtt', 256, 256, 256, 1999, 500, 350, true, true, 6000, 97, 93, 'full', '{"production","engineering","enterprise"}', '{"Enterprise-grade","Active chamber heating","Hardened nozzle","Best Bambu reliability"}', '{"Expensive","Same build volume as X1C"}'),
  (6, 'prusa-mk4s', 'Prusa MK4S', 'Prusa Research', 'prusalink', 250, 210, 220, 799, 200, 200, false, true, 8000, 85, 92, 'full', '{"reliability-focused","open-source","education"}', '{"Legendary reliability","Open source","Great support","Input shaper"}', '{"Slower than CoreXY","No enclosure stock","Higher price for speed"}'),
  (7, 'prusa-xl', 'Prusa XL', 'Prusa Research', 'prusalink', 360, 360, 360, 1999, 200, 400, false, true, 6000, 78, 80, 'full', '{"large-parts","multi-tool","prototyping"}', '{"Large build volume","Up to 5 toolheads","Segmented heatbed","Open source"}', '{"Expensive","Slow for size","Complex multi-tool setup"}'),
  (8, 'prusa-core-one', 'Prusa Core One', 'Prusa Research', 'prusalink', 250, 220, 270, 1099, 500, 300, true, true, 6000, 90, 88, 'full', '{"production","small-business","open-source"}', '{"CoreXY speed","Enclosed","Open source","Prusa quality"}', '{"New platform","Limited aftermarket parts"}'),
  (9, 'prusa-mini-plus', 'Prusa Mini+', 'Prusa Research', 'prusalink', 180, 180, 180, 429, 120, 160, false, true, 6000, 70, 88, 'full', '{"miniatures","education","small-parts"}', '{"Compact","Reliable","Affordable Prusa entry"}', '{"Small build volume","Slow","Bowden extruder"}'),
  (10, 'voron-2-4', 'Voron 2.4', 'Voron Design', 'moonraker', 350, 350, 350, 1200, 500, 500, true, true, 8000, 88, 85, 'full', '{"advanced-users","production","custom-builds"}', '{"Fully customizable","Large volume","Enclosed CoreXY","Community-driven"}', '{"Self-sourced kit","Requires build experience","No warranty"}'),
  (11, 'voron-trident', 'Voron Trident', 'Voron Design', 'moonraker', 300, 300, 300, 1000, 500, 450, true, true, 8000, 86, 86, 'full', '{"klipper-enthusiasts","production","custom-builds"}', '{"Simpler than 2.4","Fixed bed","Enclosed","Great for Klipper"}', '{"Self-sourced","Build required","No official support"}'),
  (12, 'voron-0-2', 'Voron 0.2', 'Voron Design', 'moonraker', 120, 120, 120, 500, 400, 200, true, false, 6000, 65, 80, 'full', '{"miniatures","small-parts","space-constrained"}', '{"Ultra-compact","Fast for size","Enclosed","Low cost"}', '{"Tiny build volume","Manual build","No auto-leveling"}'),
  (13, 'ratrig-vcore-4', 'RatRig V-Core 4', 'RatRig', 'moonraker', 300, 300, 300, 1300, 500, 500, true, true, 7000, 83, 82, 'full', '{"production","quality-focused","klipper-enthusiasts"}', '{"Premium kit quality","Enclosed","Beacon probe","EVA toolhead"}', '{"Pricey for kit","Smaller community","Assembly required"}'),
  (14, 'creality-k1-max', 'Creality K1 Max', 'Creality', 'moonraker', 300, 300, 340, 599, 600, 350, true, true, 3500, 75, 68, 'full', '{"budget-production","large-parts"}', '{"Large and fast","Enclosed","AI camera included","Budget CoreXY"}', '{"Reliability concerns","Modified Klipper firmware","Quality variance"}'),
  (15, 'creality-k1', 'Creality K1', 'Creality', 'moonraker', 220, 220, 250, 399, 600, 300, true, true, 3500, 70, 65, 'full', '{"budget-farm","PLA-production"}', '{"Fast","Enclosed","Affordable"}', '{"Reliability questions","Locked firmware variants","Inconsistent QC"}'),
  (16, 'creality-ender-3-v3-ke', 'Creality Ender-3 V3 KE', 'Creality', 'moonraker', 220, 220, 240, 199, 500, 200, false, true, 3000, 60, 62, 'full', '{"budget-farm","education","entry-level"}', '{"Ultra budget","Klipper-based","Fast for price"}', '{"No enclosure","Build quality varies","Limited support"}'),
  (17, 'creality-ender-3-s1-pro', 'Creality Ender-3 S1 Pro', 'Creality', 'moonraker', 220, 220, 270, 299, 150, 350, false, true, 4000, 55, 70, 'full', '{"budget-farm","high-temp-materials"}', '{"All-metal hotend","Sprite extruder","High temp capable"}', '{"Slow","Bed-slinger","Dated design"}'),
  (18, 'elegoo-neptune-4-pro', 'Elegoo Neptune 4 Pro', 'Elegoo', 'moonraker', 225, 225, 265, 259, 500, 310, false, true, 3500, 62, 65, 'full', '{"budget-farm","PLA-production"}', '{"Good speed for price","Klipper-based","Decent community"}', '{"No enclosure","Quality variance","Limited firmware updates"}'),
  (19, 'elegoo-neptune-4-max', 'Elegoo Neptune 4 Max', 'Elegoo', 'moonraker', 420, 420, 480, 469, 500, 450, false, true, 3000, 58, 60, 'full', '{"large-parts","cosplay","props"}', '{"Massive build volume","Fast","Great value per cm³"}', '{"Huge footprint","No enclosure","Heavy"}'),
  (20, 'elegoo-orangestorm-giga', 'Elegoo OrangeStorm Giga', 'Elegoo', 'moonraker', 800, 800, 1000, 2899, 300, 1200, true, true, 4000, 50, 55, 'partial', '{"furniture","industrial-prototypes","large-scale"}', '{"Enormous build volume","Enclosed","Industrial-scale"}', '{"Very expensive","Massive footprint","New platform","High power draw"}'),
  (21, 'elegoo-saturn-4-ultra', 'Elegoo Saturn 4 Ultra', 'Elegoo', 'elegoo-sdcp', 218, 123, 260, 599, 150, 100, true, false, 3000, 70, 75, 'full', '{"miniatures","dental","jewelry"}', '{"12K resolution","Fast resin curing","WiFi control","Tilting release"}', '{"Resin mess","Post-processing required","Ventilation needed"}'),
  (22, 'elegoo-mars-5-ultra', 'Elegoo Mars 5 Ultra', 'Elegoo', 'elegoo-sdcp', 153, 77, 165, 279, 130, 60, true, false, 2500, 60, 72, 'full', '{"miniatures","jewelry","dental-models"}', '{"Compact resin","Affordable","Good detail"}', '{"Small build volume","Resin handling","Fumes"}'),
  (23, 'anycubic-kobra-3', 'Anycubic Kobra 3', 'Anycubic', 'moonraker', 250, 250, 260, 399, 500, 300, false, true, 3500, 65, 67, 'partial', '{"multi-color","hobbyist-farm"}', '{"Multi-color ACE system","Fast","Competitive price"}', '{"Proprietary multi-color","Mixed reviews","Limited farm features"}'),
  (24, 'anycubic-photon-mono-m7-pro', 'Anycubic Photon Mono M7 Pro', 'Anycubic', 'moonraker', 222, 126, 245, 499, 170, 80, true, false, 2500, 58, 68, 'partial', '{"miniatures","dental","jewelry"}', '{"14K resolution","Fast resin","Smart features"}', '{"Proprietary resin recommended","WiFi-only control","Limited API"}'),
  (25, 'qidi-x-plus-3', 'QIDI X-Plus 3', 'QIDI Technology', 'moonraker', 280, 280, 270, 599, 500, 350, true, true, 4000, 74, 72, 'full', '{"engineering-materials","production","high-temp"}', '{"Enclosed CoreXY","Active chamber heating","Multi-material capable","Good price"}', '{"Modified Klipper","Smaller community","Occasional firmware bugs"}'),
  (26, 'qidi-x-max-3', 'QIDI X-Max 3', 'QIDI Technology', 'moonraker', 325, 325, 315, 799, 500, 450, true, true, 4000, 76, 73, 'full', '{"large-parts","production","engineering"}', '{"Large enclosed CoreXY","Chamber heating","Good speed"}', '{"Heavy","Modified Klipper","Fan noise"}'),
  (27, 'flashforge-adventurer-5m-pro', 'FlashForge Adventurer 5M Pro', 'FlashForge', 'moonraker', 220, 220, 220, 379, 600, 300, true, true, 3500, 68, 70, 'partial', '{"education","small-business","budget-production"}', '{"Fast","Enclosed","Affordable","Quick-swap nozzle"}', '{"Proprietary slicer preferred","Limited community","Firmware updates sparse"}'),
  (28, 'sovol-sv08', 'Sovol SV08', 'Sovol', 'moonraker', 350, 350, 400, 549, 500, 400, false, true, 3500, 65, 64, 'full', '{"budget-production","large-parts","klipper-fans"}', '{"Voron 2.4 clone","Large volume","Klipper native","Budget CoreXY"}', '{"No enclosure","QC variance","Limited support"}'),
  (29, 'artillery-sidewinder-x4-plus', 'Artillery Sidewinder X4 Plus', 'Artillery', 'moonraker', 300, 300, 400, 399, 500, 350, false, true, 3000, 58, 60, 'full', '{"budget-farm","large-parts"}', '{"Large volume","Fast","Budget friendly"}', '{"No enclosure","Mixed reliability","Sparse documentation"}'),
  (30, 'ldo-voron-2-4-kit', 'LDO Voron 2.4 Kit', 'LDO Motors', 'moonraker', 350, 350, 350, 1800, 500, 500, true, true, 8000, 90, 88, 'full', '{"production","quality-focused","advanced-users"}', '{"Premium Voron kit","Excellent components","Well-documented","Reliable"}', '{"Expensive","Assembly required","Long build time"}'),
  (31, 'ldo-voron-trident-kit', 'LDO Voron Trident Kit', 'LDO Motors', 'moonraker', 300, 300, 300, 1500, 500, 450, true, true, 8000, 88, 87, 'full', '{"production","quality-focused","klipper-enthusiasts"}', '{"Premium kit","Fixed bed simplicity","Great documentation"}', '{"Pricey","Assembly time","Requires experience"}'),
  (32, 'creality-ender-5-s1', 'Creality Ender-5 S1', 'Creality', 'moonraker', 220, 220, 280, 379, 250, 350, false, true, 4000, 55, 68, 'full', '{"budget-farm","education"}', '{"Stable cube frame","Direct drive","All-metal hotend"}', '{"Slow","Heavy moving bed","Dated electronics"}'),
  (33, 'peopoly-magneto-x', 'Peopoly Magneto X', 'Peopoly', 'moonraker', 400, 400, 400, 2499, 350, 600, true, true, 5000, 72, 70, 'partial', '{"large-parts","production","engineering"}', '{"Large enclosed CoreXY","Industrial features","Good community"}', '{"Expensive","Heavy","Niche manufacturer"}'),
  (34, 'ankermake-m5c', 'AnkerMake M5C', 'AnkerMake', 'moonraker', 220, 220, 250, 299, 500, 200, false, true, 3000, 50, 65, 'partial', '{"entry-level","education"}', '{"Fast","Easy setup","Budget friendly"}', '{"Proprietary app ecosystem","Limited customization","Locked firmware"}'),
  (35, 'ultimaker-s5', 'Ultimaker S5', 'Ultimaker', 'moonraker', 330, 240, 300, 5995, 80, 500, true, true, 10000, 82, 90, 'partial', '{"enterprise","prototyping","education"}', '{"Enterprise reliability","Dual extrusion","Enclosed","NFC material recognition"}', '{"Very expensive","Slow","Proprietary materials recommended"}'),
  (36, 'markforged-onyx-one', 'Markforged Onyx One', 'Markforged', 'moonraker', 320, 132, 154, 3499, 50, 300, true, true, 8000, 60, 85, 'none', '{"engineering","tooling","end-use-parts"}', '{"Onyx material strength","Industrial quality","Cloud management"}', '{"Very expensive","Proprietary materials only","Slow","Closed ecosystem"}'),
  (37, 'raise3d-pro3-plus', 'Raise3D Pro3 Plus', 'Raise3D', 'moonraker', 300, 300, 605, 5999, 150, 600, true, true, 8000, 75, 82, 'partial', '{"production","tall-parts","enterprise"}', '{"Tall build volume","Dual extrusion","Enclosed","ideaMaker slicer"}', '{"Very expensive","Heavy","Moderate speed"}'),
  (38, 'flsun-v400', 'FLSun V400', 'FLSun', 'moonraker', 300, 300, 410, 499, 400, 350, false, true, 3000, 55, 58, 'full', '{"budget-farm","tall-parts"}', '{"Fast delta","Large volume","Budget friendly"}', '{"Delta kinematics learning curve","Reliability issues","Round bed waste"}'),
  (39, 'elegoo-centauri-carbon', 'Elegoo Centauri Carbon', 'Elegoo', 'moonraker', 256, 256, 256, 699, 700, 350, true, true, 4000, 78, 72, 'full', '{"production","speed-focused","budget-premium"}', '{"Very fast","Enclosed CoreXY","Competitive with Bambu","Klipper-based"}', '{"New product","Unproven long-term","Modified Klipper"}');
INSERT INTO odin.reference_filaments(position, slug, name, density, price_min, price_max, nozzle_min_c, nozzle_max_c, bed_min_c, bed_max_c) VALUES
  (1, 'pla', 'PLA', 1.24, 15, 30, 190, 220, 45, 65),
  (2, 'petg', 'PETG', 1.27, 18, 35, 220, 250, 70, 85),
  (3, 'abs', 'ABS', 1.04, 17, 32, 230, 260, 95, 110),
  (4, 'asa', 'ASA', 1.07, 20, 38, 235, 260, 95, 110),
  (5, 'tpu', 'TPU (95A)', 1.21, 22, 45, 210, 240, 30, 60),
  (6, 'nylon', 'Nylon (PA6/PA12)', 1.14, 35, 65, 250, 280, 70, 100),
  (7, 'pc', 'Polycarbonate', 1.2, 35, 60, 260, 310, 105, 120),
  (8, 'pla-plus', 'PLA+', 1.24, 18, 32, 200, 230, 50, 65),
  (9, 'cf-petg', 'Carbon Fiber PETG', 1.3, 30, 55, 230, 260, 75, 90),
  (10, 'resin-standard', 'Standard Resin (UV)', 1.12, 25, 45, 20, 30, 0, 0);
INSERT INTO odin.reference_platforms(position, slug, name, pricing, per_printer, base, self_hosted, protocols, ai_detection, features, plugin_features, unlimited) VALUES
  (1, 'manual', 'Manual / No Software', 'free', 0, 0, true, '{}', 'no', '{"selfHosted","unlimitedPrinters"}', '{}', true),
  (2, 'octoprint', 'OctoPrint', 'free-self-hosted', 0, 0, true, '{"moonraker"}', 'plugin-only', '{"remoteMonitoring","api","selfHosted","cameraFeeds"}', '{"queueManagement","failureDetection","filamentTracking","notifications"}', false),
  (3, 'simplyprint', 'SimplyPrint', 'per-printer-subscription', 4.5, 0, false, '{"moonraker","prusalink"}', 'yes', '{"multiProtocol","scheduling","queueManagement","remoteMonitoring","failureDetection","filamentTracking","orderTracking","profitability","multiUser","api","cameraFeeds","notifications"}', '{}', false),
  (4, '3dprinteros', '3DPrinterOS', 'per-printer-subscription', 5, 0, false, '{"moonraker","prusalink"}', 'no', '{"multiProtocol","scheduling","queueManagement","remoteMonitoring","filamentTracking","orderTracking","multiUser","api","cameraFeeds","notifications"}', '{}', false),
  (5, 'obico', 'Obico', 'freemium', 4, 0, true, '{"moonraker"}', 'yes', '{"remoteMonitoring","failureDetection","api","selfHosted","cameraFeeds","notifications"}', '{}', false),
  (6, 'odin', 'O.D.I.N.', 'flat-rate', 0, 15, true, '{"bambu-mqtt","moonraker","prusalink","elegoo-sdcp"}', 'yes', '{"multiProtocol","scheduling","queueManagement","remoteMonitoring","failureDetection","filamentTracking","orderTracking","profitability","multiUser","api","selfHosted","unlimitedPrinters","cameraFeeds","notifications"}', '{}', true);
GRANT SELECT ON odin.reference_printers, odin.reference_filaments, odin.reference_platforms TO odin_viewer, odin_customer;
-- One set for all orgs: an administrator is one org's, so only the database's own administrator changes it.
