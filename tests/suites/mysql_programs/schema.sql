-- a dump; with a semicolon
CREATE TABLE orders (
    id INT AUTO_INCREMENT PRIMARY KEY, item VARCHAR(50) DEFAULT 'a;b', status VARCHAR(50),
    note VARCHAR(50), api_token VARCHAR(50));
CREATE TABLE stock (item VARCHAR(50) PRIMARY KEY, amount INT);
CREATE TABLE log (words VARCHAR(50)); /* no; key */
DELIMITER //
CREATE TRIGGER logs AFTER INSERT ON orders FOR EACH ROW BEGIN
    INSERT INTO log VALUES (NEW.item);
    INSERT INTO log VALUES ('twice');
END //
CREATE FUNCTION writes() RETURNS INT MODIFIES SQL DATA BEGIN
    INSERT INTO log VALUES ('by a function');
    RETURN 1;
END //
CREATE PROCEDURE sells() UPDATE stock SET amount = 0 //
DELIMITER ;
CREATE VIEW names AS SELECT item FROM orders;
CREATE VIEW a_names AS SELECT item FROM names;
INSERT INTO log VALUES ('it''s; \' fine');
